/* SPDX-License-Identifier: BSD-2-Clause */
/* Instances of a ctypes class, made and filled without ctypes' own calls. */
#pragma once

#include "fast.h"

#include <stdbool.h>

struct instances {
	PyObject *ctype; /* NULL where there is no such class */
	newfunc new;	 /* of that class */
};

static inline void pybpf_instances_of(struct instances *instances, PyObject *ctype)
{
	Py_INCREF(ctype);
	instances->ctype = ctype;
	instances->new = (newfunc)PyType_GetSlot((PyTypeObject *)ctype, Py_tp_new);
}

/* Without __init__, which is Python and only sets what keywords say. */
static inline PyObject *pybpf_instance(const struct instances *instances)
{
	PyObject *none = PyTuple_New(0);
	PyObject *value = none ? instances->new((PyTypeObject *)instances->ctype, none, NULL) : NULL;

	Py_XDECREF(none);
	return value;
}

/*
 * Where a ctypes instance keeps its memory: the first field of every CDataObject, in all versions of
 * CPython so far.  Asking ctypes.addressof() each time would take a tenth of a whole look-up, so it is
 * asked once, by pybpf_knows_instances().
 */
static inline void *pybpf_instance_memory(PyObject *instance)
{
	return *(void **)((char *)instance + sizeof(PyObject));
}

/* Whether pybpf_instance_memory() is right for that class, by ctypes.addressof(); -1 with an exception. */
static inline int pybpf_knows_instances(const struct instances *instances, PyObject *addressof)
{
	PyObject *value, *address = NULL;
	int knows = -1;

	if (!instances->ctype)
		return 1;
	value = pybpf_instance(instances);
	if (value)
		address = PyObject_CallFunctionObjArgs(addressof, value, NULL);
	if (address)
		knows = PyLong_AsVoidPtr(address) == pybpf_instance_memory(value);
	Py_XDECREF(address);
	Py_XDECREF(value);
	return knows;
}
