/* SPDX-License-Identifier: BSD-2-Clause */
/* BPF_PROG_TEST_RUN for Program.test_run(). */
#include "fast.h"

#include <linux/bpf.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

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
	if (syscall(__NR_bpf, BPF_PROG_TEST_RUN, attr, ATTR_SIZE) < 0)
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
