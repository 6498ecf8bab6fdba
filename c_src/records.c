/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Records, the base class of pybpf.Reader: takes records out of rings and makes Python values of them.
 * It never waits.  Where there is nothing, where a process forked or where the kernel's memory is not what
 * it should be, it says that there is nothing, and Reader's Python finds out why.
 *
 * A record is copied into its value before its room goes back to the kernel, so no exception loses one;
 * values that an exception keeps from the caller are given back and come again.  Python's code
 * for types that C does not know runs when the rings are at rest.
 */
#include "instances.h"
#include "rings.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "shared_fd.h"

/* How many records of one ring come before those of another that waits. */
#define TURN 64

/* Bytes that rings have around a record, at least. */
#define HEADER 8

/* After so many records that were there at once, `async for` lets others run. */
#define ASYNC_TURN 256

/* How long a record in the order of time waits for older ones of other CPUs, in nanoseconds. */
#define HELD_BACK 2000000

/* Where records come from, and what they are in Python. */
struct source {
	PyObject *name;		  /* of the pairs that tell it; NULL: no pairs */
	struct instances structs; /* their class, where it is ... */
	uint32_t size;		  /* ... of this size */
	bool is_open;		  /* all bytes behind it belong to it */
	PyObject *decode;	  /* bytes to anything else; NULL: bytes */
};

struct records {
	PyObject_HEAD
	struct source *sources;
	struct ring **rings;
	uint32_t source_count, ring_count, current, turn;
	uint32_t since_pause; /* of `async for`, for others to have their turn */
	bool taking, closed, ordered, in_batch;
	int failure;	  /* errno of a ring whose memory made no sense */
	uint64_t horizon; /* what is older may be given in order */
	PyObject *back;	  /* values that were given back, the next one last */
	PyObject *error;  /* to be raised when its turn comes */
	PyObject *undecoded; /* (index of source, bytes) of records whose decoding was interrupted */
	uint64_t received, bytes, batches, lost, highest;
	unsigned int generation;
	int bell; /* readable when rung: tells who waits of what no ring tells of (again) */
	bool rung;
#ifdef Py_GIL_DISABLED
	PyMutex mutex;
#endif
};

static PyObject *name_next;
static PyObject *name_next_async;
static PyObject *ready_type;

/* Forks so far: a child must not take its parent's records. */
static atomic_uint generation;

static void in_child(void)
{
	generation++;
}

/* ---- one at a time --------------------------------------------------------------------------------- */

static void close_rings(struct records *r)
{
	if (r->generation != generation)
		return; /* they are the parent's */
	for (uint32_t i = 0; i < r->ring_count; i++) {
		r->lost += r->rings[i]->kind->lost(r->rings[i]);
		if (r->rings[i]->highest > r->highest)
			r->highest = r->rings[i]->highest;
		r->rings[i]->kind->free(r->rings[i]);
	}
	r->ring_count = 0;
	if (r->bell >= 0)
		close(r->bell);
	r->bell = -1;
}

static void lock(struct records *r)
{
#ifdef Py_GIL_DISABLED
	PyMutex_Lock(&r->mutex);
#else
	(void)r;
#endif
}

static void unlock(struct records *r)
{
#ifdef Py_GIL_DISABLED
	PyMutex_Unlock(&r->mutex);
#else
	(void)r;
#endif
}

/*
 * Whether the rings are the caller's until leave().  Not where a finalizer, which may run while a value is
 * made, finds the same thread at it.
 */
static bool enter(struct records *r)
{
	lock(r);
	if (!r->taking && !r->closed && r->generation == generation) {
		r->taking = true;
		return true;
	}
	unlock(r);
	return false;
}

static void close_unused(struct records *r)
{
	if (r->closed && !r->taking)
		close_rings(r);
}

static void leave(struct records *r)
{
	r->taking = false;
	close_unused(r);
	unlock(r);
}

static int peek(struct records *r, uint32_t at, struct record *record)
{
	int found = r->rings[at]->kind->peek(r->rings[at], record);

	if (found < 0)
		r->failure = -found;
	return found > 0;
}

/* Make a ring with a record the current one: each ring in turn. */
static bool next_in_turn(struct records *r, struct record *record)
{
	for (uint32_t tries = 0; tries <= r->ring_count; tries++) {
		if (r->turn && peek(r, r->current, record)) {
			r->turn--;
			return true;
		}
		r->current = r->current + 1 < r->ring_count ? r->current + 1 : 0;
		r->turn = TURN;
	}
	return false;
}

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Make the ring with the oldest record the current one. */
static bool find_oldest(struct records *r, struct record *record)
{
	struct record each;
	bool found = false;

	for (uint32_t i = 0; i < r->ring_count; i++) {
		if (!peek(r, i, &each) || (found && each.time >= record->time))
			continue;
		*record = each;
		r->current = i;
		found = true;
	}
	return found;
}

/* The same, once older ones should have come to other rings. */
static bool oldest(struct records *r, struct record *record)
{
	if (!find_oldest(r, record))
		return false;
	if (record->time > r->horizon) {
		r->horizon = now() - HELD_BACK;
		find_oldest(r, record); /* what came while this thread was held up, too */
	}
	return record->time <= r->horizon;
}

static bool next_record(struct records *r, struct record *record)
{
	bool found = r->ring_count && (r->ordered ? oldest(r, record) : next_in_turn(r, record));

	r->batches += found && !r->in_batch;
	r->in_batch = found;
	return found;
}

/* False where another reader of the ring has taken the record. */
static bool release(struct records *r, const struct record *record)
{
	struct ring *ring = r->rings[r->current];

	if (!ring->kind->release(ring))
		return false;
	r->received++;
	r->bytes += record->size;
	return true;
}

/* ---- values ---------------------------------------------------------------------------------------- */

static PyObject *tagged(const struct source *source, PyObject *value)
{
	PyObject *pair;

	if (!value || !source->name)
		return value;
	pair = PyTuple_Pack(2, source->name, value);
	Py_DECREF(value);
	return pair;
}

/* A struct with the record's bytes, less what the kernel rounded its size up by; NULL: an exception. */
static PyObject *new_struct(const struct source *source, const struct record *record)
{
	PyObject *value = pybpf_instance(&source->structs);

	if (value)
		memcpy(pybpf_instance_memory(value), record->data, source->size);
	return value;
}

static bool is_plain_struct(const struct source *source, const struct ring *ring,
			    const struct record *record)
{
	uint32_t slack = source->is_open ? 0 : ring->slack;

	return source->structs.ctype && record->size - source->size <= slack;
}

/* The last of a list of what comes next; NULL: there is none, or an exception. */
static PyObject *pop(struct records *r, PyObject *list)
{
	PyObject *value = NULL;
	Py_ssize_t last;

	lock(r);
	last = (list ? PyList_Size(list) : 0) - 1;
	if (last >= 0) {
		value = PyList_GetItem(list, last);
		Py_INCREF(value);
		if (PyList_SetSlice(list, last, last + 1, NULL) < 0)
			Py_CLEAR(value);
	}
	unlock(r);
	return value;
}

/* Append to such a list, which is made when it is needed. */
static int push(struct records *r, PyObject **list, PyObject *value)
{
	int err = -1;

	lock(r);
	if (!*list)
		*list = PyList_New(0);
	if (*list)
		err = PyList_Append(*list, value);
	unlock(r);
	return err;
}

static bool has_any(PyObject *list)
{
	return list && PyList_Size(list);
}

/* Raise the exception whose turn it is, if there is one. */
static void raise_kept(struct records *r)
{
	PyObject *error;

	lock(r);
	error = r->error;
	r->error = NULL;
	unlock(r);
	if (error)
		PyErr_SetObject((PyObject *)Py_TYPE(error), error);
	Py_XDECREF(error);
}

/* Have a record decoded again, whose decoding was interrupted; the exception stays set. */
static void keep_undecoded(struct records *r, const struct source *source, PyObject *raw)
{
	PyObject *type, *value, *traceback, *kept;

	PyErr_Fetch(&type, &value, &traceback);
	kept = Py_BuildValue("nO", (Py_ssize_t)(source - r->sources), raw);
	if (!kept || push(r, &r->undecoded, kept) < 0)
		PyErr_Clear();
	Py_XDECREF(kept);
	PyErr_Restore(type, value, traceback);
}

/* The value of a record that is not C's to make, from its bytes; takes their reference over. */
static PyObject *decoded(struct records *r, const struct source *source, PyObject *raw)
{
	PyObject *value;

	if (!source->decode)
		return tagged(source, raw);
	value = PyObject_CallFunctionObjArgs(source->decode, raw, NULL);
	if (!value && !PyErr_ExceptionMatches(PyExc_Exception))
		keep_undecoded(r, source, raw);
	Py_DECREF(raw);
	return tagged(source, value);
}

/* A copy of the next record: a struct, or bytes where it is `raw`; NULL: there is none, or an exception. */
static PyObject *copy_next(struct records *r, const struct source **source, bool *is_raw)
{
	PyObject *value = NULL;
	struct record record;

	if (!enter(r))
		return NULL;
	while (!value && next_record(r, &record)) {
		*source = &r->sources[r->rings[r->current]->source];
		*is_raw = !is_plain_struct(*source, r->rings[r->current], &record);
		value = *is_raw ? PyBytes_FromStringAndSize(record.data, record.size)
				: new_struct(*source, &record);
		if (!value)
			break;
		if (!release(r, &record))
			Py_CLEAR(value);
	}
	leave(r);
	return value;
}

static PyObject *decode_kept(struct records *r, PyObject *kept)
{
	PyObject *value = NULL, *raw;
	Py_ssize_t source;

	if (PyArg_ParseTuple(kept, "nO", &source, &raw)) {
		Py_INCREF(raw);
		value = decoded(r, &r->sources[source], raw);
	}
	Py_DECREF(kept);
	return value;
}

/* What comes before all that is in the rings; NULL: nothing, or an exception. */
static PyObject *take_kept(struct records *r)
{
	PyObject *value = pop(r, r->back);

	if (value || PyErr_Occurred())
		return value;
	raise_kept(r);
	if (PyErr_Occurred())
		return NULL;
	value = pop(r, r->undecoded);
	return value ? decode_kept(r, value) : NULL;
}

/* The next record's value; NULL: there is none, or an exception. */
static PyObject *take(struct records *r)
{
	const struct source *source = NULL;
	bool is_raw = false;
	PyObject *value;

	if (has_any(r->back) || r->error || has_any(r->undecoded)) {
		value = r->generation == generation ? take_kept(r) : NULL;
		if (value || PyErr_Occurred())
			return value;
	}
	value = copy_next(r, &source, &is_raw);
	if (value)
		value = is_raw ? decoded(r, source, value) : tagged(source, value);
	return value;
}

/* Keep the exception that is set for the next take(). */
static void keep_error(struct records *r)
{
	PyObject *type, *value, *traceback;

	PyErr_Fetch(&type, &value, &traceback);
	PyErr_NormalizeException(&type, &value, &traceback);
	if (traceback)
		PyException_SetTraceback(value, traceback);
	r->error = value; /* there is none yet */
	Py_XDECREF(type);
	Py_XDECREF(traceback);
}

/* Bytes that wait in all rings. */
static uint64_t waiting(struct records *r)
{
	uint64_t bytes = 0;

	if (enter(r)) {
		for (uint32_t i = 0; i < r->ring_count; i++)
			bytes += r->rings[i]->kind->backlog(r->rings[i]);
		leave(r);
	}
	return bytes;
}

static PyObject *records_backlog(PyObject *object, PyObject *unused)
{
	(void)unused;
	return PyLong_FromUnsignedLongLong(waiting((struct records *)object));
}

/* Bytes of what was taken, with the least that rings have around a record. */
static uint64_t taken(const struct records *r)
{
	return r->bytes + HEADER * r->received;
}

/*
 * Where taking what waits ends: when as many bytes were taken as wait now.  Programs may write
 * faster than records are taken.
 */
static uint64_t end_of_present(struct records *r)
{
	return taken(r) + waiting(r);
}

static bool is_present(const struct records *r, uint64_t end, Py_ssize_t count)
{
	return !count || taken(r) < end || has_any(r->back) || has_any(r->undecoded);
}

static PyObject *records_take(PyObject *object, PyObject *arguments)
{
	struct records *r = (struct records *)object;
	uint64_t end = end_of_present(r);
	PyObject *list;
	Py_ssize_t most, count;

	if (!PyArg_ParseTuple(arguments, "O!n", &PyList_Type, &list, &most))
		return NULL;
	for (count = 0; count < most && is_present(r, end, count); count++) {
		PyObject *value = take(r);
		int err;

		if (!value)
			break;
		err = PyList_Append(list, value);
		Py_DECREF(value);
		if (err < 0)
			break;
	}
	if (PyErr_Occurred()) {
		/* Ctrl-C does not wait its turn; nor can a second error, which another thread comes with */
		if (!count || r->error || !PyErr_ExceptionMatches(PyExc_Exception))
			return NULL;
		keep_error(r); /* after those that went well */
	}
	return PyLong_FromSsize_t(count);
}

/* Have somebody who waits look, now or when he does. */
static void ring_bell(struct records *r)
{
	const uint64_t one = 1;

	lock(r);
	if (!r->rung && r->bell >= 0 && r->generation == generation)
		r->rung = write(r->bell, &one, sizeof(one)) == sizeof(one);
	unlock(r);
}

static PyObject *records_ring_bell(PyObject *object, PyObject *unused)
{
	(void)unused;
	ring_bell((struct records *)object);
	Py_RETURN_NONE;
}

static PyObject *records_silence(PyObject *object, PyObject *unused)
{
	struct records *r = (struct records *)object;
	uint64_t count;
	bool was_rung;

	(void)unused;
	lock(r);
	was_rung = r->rung && r->bell >= 0 && read(r->bell, &count, sizeof(count)) == sizeof(count);
	r->rung = false;
	unlock(r);
	return PyBool_FromLong(was_rung);
}

static int give_back(struct records *r, PyObject *value)
{
	if (push(r, &r->back, value) < 0)
		return -1;
	ring_bell(r);
	return 0;
}

static PyObject *records_give_back(PyObject *object, PyObject *list)
{
	for (Py_ssize_t i = PyList_Size(list) - 1; i >= 0; i--)
		if (give_back((struct records *)object, PyList_GetItem(list, i)) < 0)
			return NULL;
	Py_RETURN_NONE;
}

static PyObject *records_take_back(PyObject *object, PyObject *arguments)
{
	struct records *r = (struct records *)object;
	PyObject *list;
	Py_ssize_t most, count;

	if (!PyArg_ParseTuple(arguments, "O!n", &PyList_Type, &list, &most))
		return NULL;
	for (count = 0; count < most && r->generation == generation; count++) {
		PyObject *value = pop(r, r->back);
		int err;

		if (!value)
			break;
		err = PyList_Append(list, value);
		Py_DECREF(value);
		if (err < 0)
			return NULL;
	}
	if (!count && !PyErr_Occurred())
		raise_kept(r);
	return PyErr_Occurred() ? NULL : PyLong_FromSsize_t(count);
}

static PyObject *records_deliver(PyObject *object, PyObject *callback)
{
	struct records *r = (struct records *)object;
	uint64_t end = end_of_present(r);
	Py_ssize_t count;

	for (count = 0; is_present(r, end, count); count++) {
		PyObject *value = take(r), *result;

		if (!value)
			break;
		result = PyObject_CallFunctionObjArgs(callback, value, NULL);
		Py_DECREF(value);
		if (!result)
			return NULL;
		Py_DECREF(result);
	}
	return PyErr_Occurred() ? NULL : PyLong_FromSsize_t(count);
}

static PyObject *records_iternext(PyObject *object)
{
	PyObject *value = take((struct records *)object);

	if (value || PyErr_Occurred())
		return value;
	return PyObject_CallMethodObjArgs(object, name_next, NULL);
}

static PyObject *itself(PyObject *object)
{
	Py_INCREF(object);
	return object;
}

/* ---- many as memory -------------------------------------------------------------------------------- */

/* One by one, in the order of time. */
static void copy_ordered(struct records *r, struct copying *copying)
{
	struct record record;

	while (copying->count < copying->most && next_record(r, &record) &&
	       pybpf_suits(copying, record.size)) {
		pybpf_copy(copying, record.data, record.size);
		r->rings[r->current]->kind->release(r->rings[r->current]);
	}
}

/* Ring by ring, beginning with another one each time. */
static void copy_in_turn(struct records *r, struct copying *copying)
{
	for (uint32_t i = 0; i < r->ring_count && copying->other < 0; i++) {
		struct ring *ring;

		r->current = r->current + 1 < r->ring_count ? r->current + 1 : 0;
		ring = r->rings[r->current];
		ring->kind->copy(ring, copying);
	}
	r->batches += copying->count > 0;
}

/* Memory for what waits of records of that size, at most so many. */
static PyObject *memory_for(struct records *r, struct copying *copying)
{
	size_t room = waiting(r) / (copying->size + HEADER) + 1;
	PyObject *memory;

	if (copying->most > room)
		copying->most = room;
	memory = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)(copying->most * copying->size));
	if (memory)
		copying->to = PyByteArray_AsString(memory);
	return memory;
}

/* The list has the copies when this returns, so that an exception that comes then finds them. */
static PyObject *records_copy(PyObject *object, PyObject *arguments)
{
	struct records *r = (struct records *)object;
	struct copying copying = {.other = -1};
	PyObject *list, *memory, *copies;
	Py_ssize_t size, most;
	int err;

	if (!PyArg_ParseTuple(arguments, "nnO!", &size, &most, &PyList_Type, &list))
		return NULL;
	copying.size = (size_t)size;
	copying.most = (size_t)most;
	memory = memory_for(r, &copying);
	if (!memory)
		return NULL;
	if (!has_any(r->back) && !r->error && enter(r)) {
		(r->ordered ? copy_ordered : copy_in_turn)(r, &copying);
		r->received += copying.count;
		r->bytes += copying.bytes;
		leave(r);
	}
	if (copying.failure)
		r->failure = copying.failure;
	copies = Py_BuildValue("NK", memory, (unsigned long long)copying.count);
	err = copies && copying.count ? PyList_Append(list, copies) : 0;
	Py_XDECREF(copies);
	if (!copies || err)
		return NULL;
	return PyLong_FromLongLong(copying.count ? (long long)copying.count : -1 - copying.other);
}

/* Records that are shown where they are; their ring stays for as long. */
struct shown {
	struct ring *ring;
	struct ring_run run;
};

/* Not before finalizers have run that may use an array, as a part of collected garbage would. */
static void free_shown(PyObject *capsule)
{
	struct shown *shown = PyCapsule_GetPointer(capsule, NULL);

	shown->ring->kind->free(shown->ring);
	PyMem_Free(shown);
}

static PyObject *new_shown(struct ring *ring, const struct ring_run *run)
{
	struct shown *shown = PyMem_Malloc(sizeof(*shown));
	PyObject *capsule;

	if (!shown)
		return PyErr_NoMemory();
	*shown = (struct shown){ring, *run};
	capsule = PyCapsule_New(shown, NULL, free_shown);
	if (capsule)
		pybpf_bpf_ring_keep(ring);
	else
		PyMem_Free(shown);
	return capsule;
}

static PyObject *records_view(PyObject *object, PyObject *arguments)
{
	struct records *r = (struct records *)object;
	PyObject *shown = NULL;
	struct ring_run run;
	const char *memory;
	Py_ssize_t most;
	size_t size;
	int found;

	if (!PyArg_ParseTuple(arguments, "n", &most))
		return NULL;
	if (!enter(r))
		Py_RETURN_NONE;
	found = pybpf_bpf_ring_run(r->rings[0], (size_t)most, &run);
	memory = pybpf_bpf_ring_memory(r->rings[0], &size);
	if (found > 0)
		shown = new_shown(r->rings[0], &run);
	else if (found < 0)
		r->failure = -found;
	leave(r);
	if (found <= 0)
		Py_RETURN_NONE;
	if (!shown)
		return NULL;
	return Py_BuildValue("NKnnnnI", shown, (unsigned long long)(uintptr_t)memory, (Py_ssize_t)size,
			     (Py_ssize_t)run.offset, (Py_ssize_t)run.count, (Py_ssize_t)run.stride, run.size);
}

static PyObject *records_consume_view(PyObject *object, PyObject *capsule)
{
	struct shown *shown = PyCapsule_GetPointer(capsule, NULL);
	struct records *r = (struct records *)object;

	if (!shown)
		return NULL;
	if (r->generation != generation)
		Py_RETURN_TRUE; /* they are the parent's */
	if (!pybpf_bpf_ring_consume(shown->ring, &shown->run))
		Py_RETURN_FALSE;
	lock(r);
	r->batches++;
	r->received += shown->run.count;
	r->bytes += shown->run.count * shown->run.size;
	unlock(r);
	Py_RETURN_TRUE;
}

/* ---- asyncio --------------------------------------------------------------------------------------- */

/* What `await` gives at once.  Where nobody awaits it, the reader gets it back. */
struct ready {
	PyObject_HEAD
	struct records *records;
	PyObject *value;
};

static PyObject *records_anext(PyObject *object)
{
	allocfunc allocate = (allocfunc)PyType_GetSlot((PyTypeObject *)ready_type, Py_tp_alloc);
	struct records *r = (struct records *)object;
	PyObject *value = r->since_pause++ % ASYNC_TURN ? take(r) : NULL;
	struct ready *ready;

	if (!value) {
		if (PyErr_Occurred())
			return NULL;
		return PyObject_CallMethodObjArgs(object, name_next_async, NULL);
	}
	ready = (struct ready *)allocate((PyTypeObject *)ready_type, 0);
	if (!ready) {
		give_back(r, value);
		Py_DECREF(value);
		return NULL;
	}
	Py_INCREF(object);
	ready->records = r;
	ready->value = value;
	return (PyObject *)ready;
}

static PySendResult ready_send(PyObject *object, PyObject *sent, PyObject **result)
{
	struct ready *ready = (struct ready *)object;

	(void)sent;
	*result = ready->value;
	ready->value = NULL;
	if (*result)
		return PYGEN_RETURN;
	PyErr_SetString(PyExc_RuntimeError, "this record was awaited already");
	return PYGEN_ERROR;
}

static PyObject *ready_iternext(PyObject *object)
{
	PyObject *value, *stop;

	if (ready_send(object, NULL, &value) != PYGEN_RETURN)
		return NULL;
	/* made here, since a tuple would be taken for the exception's arguments */
	stop = PyObject_CallFunctionObjArgs(PyExc_StopIteration, value, NULL);
	Py_DECREF(value);
	if (stop)
		PyErr_SetObject(PyExc_StopIteration, stop);
	Py_XDECREF(stop);
	return NULL;
}

static void ready_dealloc(PyObject *object)
{
	struct ready *ready = (struct ready *)object;
	PyTypeObject *type = Py_TYPE(object);
	freefunc free_object = (freefunc)PyType_GetSlot(type, Py_tp_free);

	if (ready->value && ready->records && give_back(ready->records, ready->value) < 0)
		PyErr_WriteUnraisable(object);
	Py_XDECREF(ready->value);
	Py_XDECREF((PyObject *)ready->records);
	free_object(object);
	Py_DECREF(type);
}

static PyType_Slot ready_slots[] = {
	{Py_tp_doc, "What awaiting a record gives at once."},
	{Py_am_await, itself},
	{Py_am_send, ready_send},
	{Py_tp_iter, itself},
	{Py_tp_iternext, ready_iternext},
	{Py_tp_dealloc, ready_dealloc},
	{0, NULL},
};

static PyType_Spec ready_spec = {
	.name = "pybpf._fast.Ready",
	.basicsize = sizeof(struct ready),
	.flags = Py_TPFLAGS_DEFAULT,
	.slots = ready_slots,
};

/* ---- accounting ------------------------------------------------------------------------------------ */

static PyObject *records_account(PyObject *object, PyObject *unused)
{
	struct records *r = (struct records *)object;
	uint64_t lost = r->lost, highest = r->highest;

	(void)unused;
	if (enter(r)) {
		for (uint32_t i = 0; i < r->ring_count; i++) {
			struct ring *ring = r->rings[i];

			pybpf_ring_saw(ring, ring->kind->backlog(ring));
			lost += ring->kind->lost(ring);
			highest = ring->highest > highest ? ring->highest : highest;
		}
		leave(r);
	}
	return Py_BuildValue("KKKKK", (unsigned long long)r->received, (unsigned long long)r->bytes,
			     (unsigned long long)r->batches, (unsigned long long)lost,
			     (unsigned long long)highest);
}

static PyObject *records_state(PyObject *object, PyObject *unused)
{
	struct records *r = (struct records *)object;

	(void)unused;
	return Py_BuildValue("OOi", r->closed ? Py_True : Py_False,
			     r->generation == generation ? Py_False : Py_True, r->failure);
}

/* ---- setting up and closing ------------------------------------------------------------------------ */

static void clear_sources(struct records *r)
{
	for (uint32_t i = 0; i < r->source_count; i++) {
		Py_CLEAR(r->sources[i].name);
		Py_CLEAR(r->sources[i].structs.ctype);
		Py_CLEAR(r->sources[i].decode);
	}
}

/* NULL for None. */
static PyObject *given(PyObject *object)
{
	if (object == Py_None)
		return NULL;
	Py_INCREF(object);
	return object;
}

static PyObject *records_add_source(PyObject *object, PyObject *arguments)
{
	struct records *r = (struct records *)object;
	PyObject *name, *ctype, *decode, *addressof;
	struct source *source;
	uint32_t size;
	int is_open, knows;

	if (!PyArg_ParseTuple(arguments, "OOIpOO", &name, &ctype, &size, &is_open, &decode, &addressof))
		return NULL;
	source = PyMem_Realloc(r->sources, (r->source_count + 1) * sizeof(*source));
	if (!source)
		return PyErr_NoMemory();
	r->sources = source;
	source += r->source_count++;
	*source = (struct source){
		.name = given(name), .size = size, .is_open = is_open, .decode = given(decode),
	};
	if (ctype == Py_None)
		Py_RETURN_NONE;
	pybpf_instances_of(&source->structs, ctype);
	knows = pybpf_knows_instances(&source->structs, addressof);
	if (knows < 0)
		return NULL;
	if (!knows)
		Py_CLEAR(source->structs.ctype);
	Py_RETURN_NONE;
}

/* Takes the ring over. */
static int add_ring(struct records *r, struct ring *ring)
{
	struct ring **rings = PyMem_Realloc(r->rings, (r->ring_count + 1) * sizeof(*rings));

	if (!rings) {
		ring->kind->free(ring);
		return -ENOMEM;
	}
	ring->source = r->source_count - 1;
	r->rings = rings;
	rings[r->ring_count++] = ring;
	return 0;
}

static PyObject *records_add_ring(PyObject *object, PyObject *arguments)
{
	struct ring *ring;
	Py_ssize_t size;
	int map_fd, err;

	if (!PyArg_ParseTuple(arguments, "in", &map_fd, &size))
		return NULL;
	err = pybpf_bpf_ring_open(map_fd, (size_t)size, &ring);
	return PyLong_FromLong(err ? err : add_ring((struct records *)object, ring));
}

static PyObject *records_add_perf(PyObject *object, PyObject *arguments)
{
	struct records *r = (struct records *)object;
	struct perf_options options = {0};
	struct ring *ring;
	int map_fd, cpu, watermark, overwrite, ordered, err;

	if (!PyArg_ParseTuple(arguments, "iiIIppp", &map_fd, &cpu, &options.pages, &options.wakeup,
			      &watermark, &overwrite, &ordered))
		return NULL;
	options.watermark = watermark;
	options.overwrite = overwrite;
	options.timed = ordered;
	r->ordered = ordered;
	err = pybpf_perf_ring_open(map_fd, cpu, &options, &ring);
	if (!err)
		err = add_ring(r, ring);
	return PyLong_FromLong(err ? err : pybpf_perf_ring_fd(ring));
}

static PyObject *records_add_bell(PyObject *object, PyObject *unused)
{
	struct records *r = (struct records *)object;

	(void)unused;
	r->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return PyLong_FromLong(r->bell < 0 ? -errno : r->bell);
}

static PyObject *records_close(PyObject *object, PyObject *unused)
{
	struct records *r = (struct records *)object;

	(void)unused;
	lock(r);
	r->closed = true;
	close_unused(r);
	unlock(r);
	Py_RETURN_NONE;
}

static PyObject *records_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
	allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
	struct records *r = (struct records *)allocate(type, 0);

	(void)arguments;
	(void)keywords;
	if (r) {
		r->generation = generation;
		r->turn = TURN;
		r->bell = -1;
	}
	return (PyObject *)r;
}

static int records_traverse(PyObject *object, visitproc visit, void *arg)
{
	struct records *r = (struct records *)object;

	Py_VISIT(Py_TYPE(object));
	for (uint32_t i = 0; i < r->source_count; i++) {
		Py_VISIT(r->sources[i].name);
		Py_VISIT(r->sources[i].structs.ctype);
		Py_VISIT(r->sources[i].decode);
	}
	Py_VISIT(r->back);
	Py_VISIT(r->error);
	Py_VISIT(r->undecoded);
	return 0;
}

static int records_clear(PyObject *object)
{
	struct records *r = (struct records *)object;

	r->closed = true;
	close_rings(r);
	clear_sources(r);
	Py_CLEAR(r->back);
	Py_CLEAR(r->error);
	Py_CLEAR(r->undecoded);
	return 0;
}

static void records_dealloc(PyObject *object)
{
	struct records *r = (struct records *)object;
	PyTypeObject *type = Py_TYPE(object);
	freefunc free_object = (freefunc)PyType_GetSlot(type, Py_tp_free);

	PyObject_GC_UnTrack(object);
	records_clear(object);
	PyMem_Free(r->sources);
	PyMem_Free(r->rings);
	free_object(object);
	Py_DECREF(type);
}

static PyMethodDef methods[] = {
	{"_add_source", records_add_source, METH_VARARGS,
	 "_add_source(name, ctype, size, is_open, decode, addressof)\n--\n\n"
	 "From here on rings belong to it.  Its records are pairs with that name unless it is None;\n"
	 "structs of that class where they have its size; else, and where more bytes are elements, what ``decode`` makes of the bytes."},
	{"_add_ring", records_add_ring, METH_VARARGS,
	 "_add_ring(map_fd, size)\n--\n\nRead that BPF ring buffer; 0 or a negative errno."},
	{"_add_perf", records_add_perf, METH_VARARGS,
	 "_add_perf(map_fd, cpu, pages, wakeup, watermark, overwrite, ordered)\n--\n\n"
	 "Read that CPU's part of a perf event array; what to poll, or a negative errno."},
	{"_add_bell", records_add_bell, METH_NOARGS,
	 "_add_bell()\n--\n\nWhat to poll for _ring_bell() and _give_back(), or a negative errno."},
	{"_ring_bell", records_ring_bell, METH_NOARGS,
	 "_ring_bell()\n--\n\nHave somebody who waits look at what is there."},
	{"_silence", records_silence, METH_NOARGS,
	 "_silence()\n--\n\nEnd that; whether it was rung, so that looking again is worth it."},
	{"_take", records_take, METH_VARARGS,
	 "_take(list, most)\n--\n\nAppend what waits; how many.  An error comes after what went well."},
	{"_give_back", records_give_back, METH_O,
	 "_give_back(list)\n--\n\nHave these values come again before all others."},
	{"_take_back", records_take_back, METH_VARARGS,
	 "_take_back(list, most)\n--\n\nAppend what was given back; how many."},
	{"_deliver", records_deliver, METH_O,
	 "_deliver(callback)\n--\n\nCall it with what waits, one by one; how many."},
	{"_copy", records_copy, METH_VARARGS,
	 "_copy(size, most, list)\n--\n\n"
	 "Copy records of that size, append (memory, how many) and say how many; where the next one is of\n"
	 "another size, -1 less that.  Nothing where others come first: _take_back()."},
	{"_view", records_view, METH_VARARGS,
	 "_view(most)\n--\n\nThe next alike records of a BPF ring buffer where they are: (what keeps the memory,\n"
	 "its address and length, offset of the first, how many, bytes from one to the next, size);\n"
	 "None where there are none."},
	{"_consume_view", records_consume_view, METH_O,
	 "_consume_view(what keeps the memory)\n--\n\n"
	 "Give those back to the kernel, also after closing; whether they were still there."},
	{"_account", records_account, METH_NOARGS,
	 "_account()\n--\n\n(received, bytes, batches, lost, highest backlog)"},
	{"_backlog", records_backlog, METH_NOARGS, "_backlog()\n--\n\nBytes that wait in the rings."},
	{"_state", records_state, METH_NOARGS,
	 "_state()\n--\n\n(is it closed, is it the parent process's, errno of a ring)"},
	{"_close", records_close, METH_NOARGS,
	 "_close()\n--\n\nGive the memory back, at the latest when who reads has done so."},
	{NULL},
};

static PyType_Slot slots[] = {
	{Py_tp_doc, "Records of rings in C; see c_src/records.c."},
	{Py_tp_new, records_new},
	{Py_tp_iter, itself},
	{Py_tp_iternext, records_iternext},
	{Py_am_aiter, itself},
	{Py_am_anext, records_anext},
	{Py_tp_methods, methods},
	{Py_tp_traverse, records_traverse},
	{Py_tp_clear, records_clear},
	{Py_tp_dealloc, records_dealloc},
	{0, NULL},
};

static PyType_Spec spec = {
	.name = "pybpf._fast.Records",
	.basicsize = sizeof(struct records),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
	.slots = slots,
};

PyObject *pybpf_records_type(void)
{
	name_next = PyUnicode_InternFromString("_next");
	name_next_async = PyUnicode_InternFromString("_next_async");
	if (!name_next || !name_next_async)
		return NULL;
	ready_type = PyType_FromSpec(&ready_spec);
	if (!ready_type || pthread_atfork(NULL, NULL, in_child))
		return NULL;
	return PyType_FromSpec(&spec);
}
