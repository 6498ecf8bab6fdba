/* SPDX-License-Identifier: BSD-2-Clause */
/* BPF_PROG_TEST_RUN for Program.test_run(): the whole, and a shorter way for its simplest calls. */
#include "fast.h"

#include <stdbool.h>

#include "shared_fd.h"

enum argument {
	PROGRAM,
	DATA,
	DATA_OUT_SIZE,
	CTX,
	CTX_OUT,
	REPEAT,
	FLAGS,
	CPU,
	BATCH_SIZE,
	COUNT,
};

enum ctx_out {
	CTX_NOT_WRITTEN,
	CTX_IN_PLACE,
	CTX_APART,
};

#define ATTR_SIZE (offsetof(union bpf_attr, test.batch_size) + sizeof(((union bpf_attr *)0)->test.batch_size))

#define LITTLE 2048 /* packets afterwards that need no memory but the stack */
#define MORE_DATA_OUT 256 /* how much longer than before they may be, unless the caller says */

static PyTypeObject *result_type;

static PyStructSequence_Field fields[] = {
	{"retval", "What the program returned, the last time."},
	{"data_out", "The packet afterwards; empty without one."},
	{"ctx_out", "The context afterwards; empty without one."},
	{"duration_ns", "The mean of one repetition."},
	{NULL},
};

static PyStructSequence_Desc description = {
	.name = "pybpf.TestRunResult",
	.doc = "What one test_run() gave.",
	.fields = fields,
	.n_in_sequence = 4,
};

PyObject *pybpf_test_run_result_type(void)
{
	if (!result_type)
		result_type = PyStructSequence_NewType(&description);
	Py_XINCREF(result_type);
	return (PyObject *)result_type;
}

/* An argument of 32 bits; PyErr_Occurred() tells whether it is none. */
static uint32_t number(PyObject *argument)
{
	unsigned long value = PyLong_AsUnsignedLong(argument);

	if (value > UINT32_MAX && !PyErr_Occurred())
		PyErr_SetString(PyExc_OverflowError, "sizes, counts and flags have 32 bits");
	return (uint32_t)value;
}

/* The bytes of an argument that is bytes or None; 0 with an exception otherwise. */
static int input(PyObject *argument, const char **start, Py_ssize_t *size)
{
	*start = NULL;
	*size = 0;
	if (argument == Py_None)
		return 1;
	*start = PyBytes_AsString(argument);
	*size = *start ? PyBytes_Size(argument) : 0;
	return *start != NULL;
}

static int run(struct pybpf_fd *program, union bpf_attr *attr)
{
	int fd = pybpf_fd_enter(program), err = 0;

	if (fd < 0)
		return -fd;
	attr->test.prog_fd = (uint32_t)fd;
	Py_BEGIN_ALLOW_THREADS
	if (pybpf_syscall(__NR_bpf, BPF_PROG_TEST_RUN, attr, ATTR_SIZE) < 0)
		err = errno;
	Py_END_ALLOW_THREADS
	pybpf_fd_leave(program);
	return err;
}

static PyObject *result(const union bpf_attr *attr, const char *data_out, PyObject *ctx_out)
{
	PyObject *values[] = {
		PyLong_FromUnsignedLong(attr->test.retval),
		PyBytes_FromStringAndSize(data_out, data_out ? attr->test.data_size_out : 0),
		ctx_out,
		PyLong_FromUnsignedLong(attr->test.duration),
	};
	PyObject *result = PyStructSequence_New(result_type);

	for (Py_ssize_t i = 0; i < 4; i++) {
		if (result && values[i])
			PyStructSequence_SetItem(result, i, values[i]); /* which owns it */
		else
			Py_XDECREF(values[i]);
		if (!values[i])
			Py_CLEAR(result);
	}
	return result;
}

/* What the run gives with `attr` and room for the packet afterwards, or its errno. */
static PyObject *run_with_room(struct pybpf_fd *program, union bpf_attr *attr, PyObject *ctx,
			       long ctx_mode, char *data_out)
{
	Py_ssize_t ctx_size = ctx == Py_None ? 0 : PyBytes_Size(ctx);
	PyObject *ctx_out = PyBytes_FromStringAndSize(NULL, ctx_size);
	char *ctx_out_start = ctx_out ? PyBytes_AsString(ctx_out) : NULL;
	int err;

	if (!ctx_out)
		return NULL;
	attr->test.data_out = (uintptr_t)data_out;
	if (ctx_size) {
		/* nobody else has seen these bytes yet, so they may still change */
		memcpy(ctx_out_start, PyBytes_AsString(ctx), (size_t)ctx_size);
		if (ctx_mode == CTX_IN_PLACE)
			attr->test.ctx_in = (uintptr_t)ctx_out_start;
	}
	if (ctx_size && ctx_mode == CTX_APART) {
		attr->test.ctx_out = (uintptr_t)ctx_out_start;
		attr->test.ctx_size_out = (uint32_t)ctx_size;
	}
	err = run(program, attr);
	if (!err)
		return result(attr, data_out, ctx_out);
	Py_DECREF(ctx_out);
	return PyLong_FromLong(err);
}

PyObject *pybpf_test_run(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
	union bpf_attr attr;
	const char *data, *ctx;
	char little[LITTLE], *room = NULL;
	Py_ssize_t data_size, ctx_size;
	PyObject *answer;
	long ctx_mode;

	if (count != COUNT) {
		PyErr_Format(PyExc_TypeError, "test_run() takes %d arguments, not %zd", COUNT, count);
		return NULL;
	}
	if (!input(arguments[DATA], &data, &data_size) || !input(arguments[CTX], &ctx, &ctx_size))
		return NULL;
	memset(&attr, 0, sizeof(attr));
	ctx_mode = PyLong_AsLong(arguments[CTX_OUT]);
	attr.test.data_in = (uintptr_t)data;
	attr.test.data_size_in = (uint32_t)data_size;
	attr.test.data_size_out = number(arguments[DATA_OUT_SIZE]);
	attr.test.ctx_in = (uintptr_t)ctx;
	attr.test.ctx_size_in = (uint32_t)ctx_size;
	attr.test.repeat = number(arguments[REPEAT]);
	attr.test.flags = number(arguments[FLAGS]);
	attr.test.cpu = number(arguments[CPU]);
	attr.test.batch_size = number(arguments[BATCH_SIZE]);
	if (PyErr_Occurred())
		return NULL;
	if (attr.test.data_size_out)
		room = attr.test.data_size_out <= LITTLE ? little : PyMem_Malloc(attr.test.data_size_out);
	if (attr.test.data_size_out && !room)
		return PyErr_NoMemory();
	answer = run_with_room(PyLong_AsVoidPtr(arguments[PROGRAM]), &attr, arguments[CTX], ctx_mode, room);
	if (room != little)
		PyMem_Free(room);
	return answer;
}

/* ---- Runs, the base class of pybpf.Program --------------------------------------------------------- */

struct runs {
	PyObject_HEAD
	struct pybpf_fd *program; /* NULL while not set up */
	PyObject *program_owner;  /* keeps it */
	long ctx_out;
};

static PyObject *name_test_run, *name_ctx;

/* The bytes of a call test_run(data) or test_run(ctx=ctx), *is_ctx telling which; NULL for others. */
static PyObject *only_argument(PyObject *arguments, PyObject *keywords, bool *is_ctx)
{
	Py_ssize_t positional = PyTuple_Size(arguments), named = keywords ? PyDict_Size(keywords) : 0;
	PyObject *only = NULL;

	*is_ctx = named == 1;
	if (positional == 1 && named == 0)
		only = PyTuple_GetItem(arguments, 0);
	else if (positional == 0 && named == 1)
		only = PyDict_GetItemWithError(keywords, name_ctx);
	return only && PyBytes_CheckExact(only) ? only : NULL;
}

/* One run on a packet or a context; NULL with an exception or, where the kernel refuses, without. */
static PyObject *run_on(struct runs *self, PyObject *given, bool is_ctx)
{
	union bpf_attr attr;
	char room[LITTLE];
	PyObject *answer;
	uint32_t size = (uint32_t)PyBytes_Size(given);

	memset(&attr, 0, ATTR_SIZE);
	if (is_ctx) {
		attr.test.ctx_in = (uintptr_t)PyBytes_AsString(given);
		attr.test.ctx_size_in = size;
	} else {
		attr.test.data_in = (uintptr_t)PyBytes_AsString(given);
		attr.test.data_size_in = size;
		attr.test.data_size_out = size + MORE_DATA_OUT;
	}
	answer = run_with_room(self->program, &attr, is_ctx ? given : Py_None, self->ctx_out,
			       is_ctx ? NULL : room);
	if (answer && PyLong_CheckExact(answer))
		Py_CLEAR(answer);
	return answer;
}

static PyObject *runs_test_run(PyObject *object, PyObject *arguments, PyObject *keywords)
{
	struct runs *self = (struct runs *)object;
	PyObject *given = NULL, *answer = NULL, *method;
	bool is_ctx;

	if (self->program)
		given = only_argument(arguments, keywords, &is_ctx);
	if (given && PyBytes_Size(given) <= LITTLE - MORE_DATA_OUT)
		answer = run_on(self, given, is_ctx);
	if (answer || PyErr_Occurred())
		return answer;
	method = PyObject_GetAttr(object, name_test_run);
	if (method)
		answer = PyObject_Call(method, arguments, keywords);
	Py_XDECREF(method);
	return answer;
}

static PyObject *runs_accelerate(PyObject *object, PyObject *arguments)
{
	struct runs *self = (struct runs *)object;
	PyObject *owner, *address;

	if (!PyArg_ParseTuple(arguments, "OO!l", &owner, &PyLong_Type, &address, &self->ctx_out))
		return NULL;
	Py_INCREF(owner);
	Py_XDECREF(self->program_owner);
	self->program_owner = owner;
	/* last: from here on other threads use it */
	atomic_thread_fence(memory_order_release);
	self->program = PyLong_AsVoidPtr(address);
	Py_RETURN_NONE;
}

static int runs_traverse(PyObject *object, visitproc visit, void *arg)
{
	Py_VISIT(Py_TYPE(object));
	Py_VISIT(((struct runs *)object)->program_owner);
	return 0;
}

static int runs_clear(PyObject *object)
{
	((struct runs *)object)->program = NULL;
	Py_CLEAR(((struct runs *)object)->program_owner);
	return 0;
}

static void runs_dealloc(PyObject *object)
{
	PyTypeObject *type = Py_TYPE(object);
	freefunc free_object = (freefunc)PyType_GetSlot(type, Py_tp_free);

	PyObject_GC_UnTrack(object);
	runs_clear(object);
	free_object(object);
	Py_DECREF(type);
}

static PyMethodDef runs_methods[] = {
	{"test_run", (PyCFunction)(void (*)(void))runs_test_run, METH_VARARGS | METH_KEYWORDS,
	 "test_run($self, data=None, *, ctx=None, repeat=1, data_out_size=None, flags=0, cpu=0, "
	 "batch_size=0)\n--\n\n"
	 "Run the program in the kernel on given input (BPF_PROG_TEST_RUN).\n\n"
	 "``data`` is a packet for network programs, ``ctx`` the context structure; both are bytes or\n"
	 "what gives its memory, such as a struct.  Up to ``data_out_size`` bytes of the packet\n"
	 "afterwards come back (256 more than ``data`` unless given) and as many bytes of context as\n"
	 "went in.  KernelError where the kernel refuses the input or the program's type has no test\n"
	 "run, ValueError for a ``repeat`` below 1.  Needs what loading the program needs."},
	{"_accelerate", runs_accelerate, METH_VARARGS,
	 "_accelerate(program_owner, program_address, ctx_out)\n--\n\n"
	 "Answer simple calls in C from now on; others go to the method _test_run()."},
	{NULL},
};

static PyType_Slot runs_slots[] = {
	{Py_tp_doc, "Test runs in C; see c_src/test_run.c."},
	{Py_tp_methods, runs_methods},
	{Py_tp_traverse, runs_traverse},
	{Py_tp_clear, runs_clear},
	{Py_tp_dealloc, runs_dealloc},
	{0, NULL},
};

static PyType_Spec runs_spec = {
	.name = "pybpf._fast.Runs",
	.basicsize = sizeof(struct runs),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
	.slots = runs_slots,
};

PyObject *pybpf_runs_type(void)
{
	name_test_run = PyUnicode_InternFromString("_test_run");
	name_ctx = PyUnicode_InternFromString("ctx");
	return name_test_run && name_ctx ? PyType_FromSpec(&runs_spec) : NULL;
}
