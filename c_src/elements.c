/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Elements, the base class of pybpf.Map: m[key], m[key] = value, del m[key], key in m and m.get(key)
 * where that is an integer or a plain struct and the kernel says yes.  Everything else (other types,
 * other errors) goes to the methods _getitem, _setitem, _delitem and _contains, which Map has in Python
 * and which do all of it.  docs/architecture.md tells what that is worth.
 *
 * The kernel answers within a microsecond and never sleeps here, so the GIL is kept: handing it over
 * would take longer.
 */
#include "fast.h"

#include <stdbool.h>
#include <string.h>

#include "instances.h"
#include "shared_fd.h"

/* An integer and its place in a key or value. */
struct number {
	uint32_t offset, size;
	bool is_signed, is_bool;
};

/* How Python sees a key or a value: as one integer, or as a struct, which a tuple may stand for. */
struct side {
	uint32_t size, count;
	struct number *numbers; /* all there is in it, where that is integers alone */
	struct instances structs; /* without a class for an integer */
	bool has_padding;	/* of that struct: its memory must not reach the kernel unseen */
};

struct elements {
	PyObject_HEAD
	struct pybpf_fd *_Atomic map; /* NULL while not set up; the rest is there before it is */
	PyObject *map_owner;   /* keeps it */
	struct side key, value;
};

static PyObject *name_getitem, *name_setitem, *name_delitem, *name_contains;

#define MEMORY_SIZE 512 /* of keys and values that are packed here; longer ones are in Python */

/* A key or value on its way to the kernel. */
struct argument {
	const void *start;
	char memory[MEMORY_SIZE] __attribute__((aligned(8)));
};

static bool fits(long long number, const struct number *place)
{
	long long half;

	if (place->size == 8)
		return place->is_signed || number >= 0;
	half = 1LL << (8 * place->size - 1);
	return place->is_signed ? -half <= number && number < half : 0 <= number && number < 2 * half;
}

static bool store_number(char *memory, const struct number *place, PyObject *value)
{
	int overflow = 0;
	long long number;

	if (place->is_bool ? !PyBool_Check(value) : !PyLong_CheckExact(value))
		return false;
	number = PyLong_AsLongLongAndOverflow(value, &overflow);
	if (overflow || !fits(number, place))
		return false;
	memory += place->offset;
	switch (place->size) {
	case 1:
		memcpy(memory, &(uint8_t){(uint8_t)number}, 1);
		break;
	case 2:
		memcpy(memory, &(uint16_t){(uint16_t)number}, 2);
		break;
	case 4:
		memcpy(memory, &(uint32_t){(uint32_t)number}, 4);
		break;
	default:
		memcpy(memory, &number, 8);
	}
	return true;
}

static PyObject *load_number(const void *memory, const struct number *place)
{
	if (place->is_bool)
		return PyBool_FromLong(*(const uint8_t *)memory);
	switch (place->size) {
	case 1:
		return PyLong_FromLong(place->is_signed ? *(const int8_t *)memory : *(const uint8_t *)memory);
	case 2:
		return PyLong_FromLong(place->is_signed ? *(const int16_t *)memory
							: *(const uint16_t *)memory);
	case 4:
		return place->is_signed ? PyLong_FromLong(*(const int32_t *)memory)
					: PyLong_FromUnsignedLong(*(const uint32_t *)memory);
	default:
		return place->is_signed ? PyLong_FromLongLong(*(const int64_t *)memory)
					: PyLong_FromUnsignedLongLong(*(const uint64_t *)memory);
	}
}

static bool store_tuple(char *memory, const struct side *side, PyObject *tuple)
{
	if (PyTuple_Size(tuple) != (Py_ssize_t)side->count)
		return false;
	memset(memory, 0, side->size);
	for (uint32_t i = 0; i < side->count; i++)
		if (!store_number(memory, &side->numbers[i], PyTuple_GetItem(tuple, i)))
			return false;
	return true;
}

/* Whether `value` could be prepared; where not, Python's methods take over. */
static bool prepare(const struct side *side, PyObject *value, struct argument *argument)
{
	argument->start = argument->memory;
	if (!side->structs.ctype)
		return side->count && store_number(argument->memory, side->numbers, value);
	if (side->count && PyTuple_CheckExact(value))
		return store_tuple(argument->memory, side, value);
	if ((PyObject *)Py_TYPE(value) != side->structs.ctype || side->has_padding)
		return false;
	argument->start = pybpf_instance_memory(value);
	return true;
}

/* Not by PyErr_SetObject() alone, which takes the members of a tuple for the error's arguments. */
static void set_key_error(PyObject *key)
{
	PyObject *error = PyObject_CallFunctionObjArgs(PyExc_KeyError, key, NULL);

	if (error)
		PyErr_SetObject(PyExc_KeyError, error);
	Py_XDECREF(error);
}

/* 1 with *result set (NULL: an exception), 0 where there is no such key, -1 for Python to do it. */
static int lookup(struct elements *self, PyObject *key, PyObject **result)
{
	struct argument raw_key;
	uint64_t number;
	void *memory = &number;
	int err;

	*result = NULL;
	if (!self->map || !(self->value.structs.ctype || self->value.count) ||
	    !prepare(&self->key, key, &raw_key))
		return -1;
	if (self->value.structs.ctype) {
		*result = pybpf_instance(&self->value.structs);
		if (!*result)
			return 1;
		memory = pybpf_instance_memory(*result);
	}
	err = pybpf_shared_element(self->map, BPF_MAP_LOOKUP_ELEM, raw_key.start, memory, 0);
	if (err) {
		Py_CLEAR(*result);
		return err == -ENOENT ? 0 : -1;
	}
	if (!*result)
		*result = load_number(&number, self->value.numbers);
	return 1;
}

static PyObject *elements_getitem(PyObject *object, PyObject *key)
{
	PyObject *value = NULL;

	switch (lookup((struct elements *)object, key, &value)) {
	case 1:
		return value;
	case 0:
		set_key_error(key);
		return NULL;
	default:
		return PyObject_CallMethodObjArgs(object, name_getitem, key, NULL);
	}
}

static PyObject *elements_get(PyObject *object, PyObject *arguments)
{
	PyObject *key, *missing = Py_None, *value = NULL;

	if (!PyArg_ParseTuple(arguments, "O|O:get", &key, &missing))
		return NULL;
	switch (lookup((struct elements *)object, key, &value)) {
	case 1:
		return value;
	case 0:
		break;
	default:
		value = PyObject_CallMethodObjArgs(object, name_getitem, key, NULL);
		if (value || !PyErr_ExceptionMatches(PyExc_KeyError))
			return value;
		PyErr_Clear();
	}
	Py_INCREF(missing);
	return missing;
}

static int elements_contains(PyObject *object, PyObject *key)
{
	PyObject *answer = NULL;
	int found = lookup((struct elements *)object, key, &answer);

	if (found == 0)
		return 0;
	if (found < 0)
		answer = PyObject_CallMethodObjArgs(object, name_contains, key, NULL);
	if (!answer)
		return -1;
	found = found > 0 || PyObject_IsTrue(answer);
	Py_DECREF(answer);
	return found;
}

static int through_python(PyObject *object, PyObject *method, PyObject *key, PyObject *value)
{
	PyObject *none = PyObject_CallMethodObjArgs(object, method, key, value, NULL);

	Py_XDECREF(none);
	return none ? 0 : -1;
}

static int delete_element(PyObject *object, PyObject *key)
{
	struct elements *self = (struct elements *)object;
	struct argument raw_key;
	int err = -1;

	if (self->map && prepare(&self->key, key, &raw_key)) {
		err = pybpf_shared_element(self->map, BPF_MAP_DELETE_ELEM, raw_key.start, NULL, 0);
		if (err == -ENOENT) {
			set_key_error(key);
			return -1;
		}
	}
	return err ? through_python(object, name_delitem, key, NULL) : 0;
}

static int elements_setitem(PyObject *object, PyObject *key, PyObject *value)
{
	struct elements *self = (struct elements *)object;
	struct argument raw_key, raw_value;
	int err = -1;

	if (!value)
		return delete_element(object, key);
	if (self->map && prepare(&self->key, key, &raw_key) &&
	    prepare(&self->value, value, &raw_value))
		err = pybpf_shared_element(self->map, BPF_MAP_UPDATE_ELEM, raw_key.start, raw_value.start, 0);
	return err ? through_python(object, name_setitem, key, value) : 0;
}

/* ---- setting up ------------------------------------------------------------------------------------ */

static bool set_numbers(struct side *side, PyObject *numbers)
{
	Py_ssize_t count = PyTuple_Size(numbers);

	if (count < 0)
		return false;
	side->numbers = PyMem_Calloc((size_t)count + 1, sizeof(*side->numbers));
	if (!side->numbers) {
		PyErr_NoMemory();
		return false;
	}
	for (Py_ssize_t i = 0; i < count; i++) {
		struct number *number = &side->numbers[i];
		int is_signed, is_bool;

		if (!PyArg_ParseTuple(PyTuple_GetItem(numbers, i), "IIpp", &number->offset, &number->size,
				      &is_signed, &is_bool))
			return false;
		number->is_signed = is_signed;
		number->is_bool = is_bool;
		if (number->size > 8 || number->offset + number->size > side->size) {
			PyErr_SetString(PyExc_ValueError, "a number that is not within its key or value");
			return false;
		}
	}
	side->count = side->size <= MEMORY_SIZE ? (uint32_t)count : 0;
	return true;
}

static bool set_side(struct side *side, PyObject *described)
{
	PyObject *numbers, *ctype;
	int has_padding;

	if (!PyArg_ParseTuple(described, "IO!Op", &side->size, &PyTuple_Type, &numbers, &ctype,
			      &has_padding))
		return false;
	side->has_padding = has_padding;
	if (ctype != Py_None)
		pybpf_instances_of(&side->structs, ctype);
	return set_numbers(side, numbers);
}

static PyObject *elements_accelerate(PyObject *object, PyObject *arguments)
{
	struct elements *self = (struct elements *)object;
	PyObject *owner, *address, *key, *value, *addressof;
	int knows;

	if (!PyArg_ParseTuple(arguments, "OO!O!O!O", &owner, &PyLong_Type, &address, &PyTuple_Type, &key,
			      &PyTuple_Type, &value, &addressof))
		return NULL;
	if (self->map_owner) {
		PyErr_SetString(PyExc_RuntimeError, "set up already");
		return NULL;
	}
	Py_INCREF(owner);
	self->map_owner = owner;
	if (!set_side(&self->key, key) || !set_side(&self->value, value))
		return NULL;
	knows = pybpf_knows_instances(&self->key.structs, addressof);
	if (knows == 1)
		knows = pybpf_knows_instances(&self->value.structs, addressof);
	if (knows < 0)
		return NULL;
	/* last: from here on other threads use it */
	self->map = knows ? PyLong_AsVoidPtr(address) : NULL;
	return PyBool_FromLong(knows);
}

static int elements_traverse(PyObject *object, visitproc visit, void *arg)
{
	struct elements *self = (struct elements *)object;

	Py_VISIT(Py_TYPE(object));
	Py_VISIT(self->map_owner);
	Py_VISIT(self->key.structs.ctype);
	Py_VISIT(self->value.structs.ctype);
	return 0;
}

static int elements_clear(PyObject *object)
{
	struct elements *self = (struct elements *)object;

	self->map = NULL;
	Py_CLEAR(self->map_owner);
	Py_CLEAR(self->key.structs.ctype);
	Py_CLEAR(self->value.structs.ctype);
	return 0;
}

static void elements_dealloc(PyObject *object)
{
	PyTypeObject *type = Py_TYPE(object);
	freefunc free_object = (freefunc)PyType_GetSlot(type, Py_tp_free);

	PyObject_GC_UnTrack(object);
	elements_clear(object);
	PyMem_Free(((struct elements *)object)->key.numbers);
	PyMem_Free(((struct elements *)object)->value.numbers);
	free_object(object);
	Py_DECREF(type);
}

static PyMethodDef methods[] = {
	{"get", elements_get, METH_VARARGS,
	 "get(key, default=None)\n--\n\nThe value under ``key``, ``default`` where there is none."},
	{"_accelerate", elements_accelerate, METH_VARARGS,
	 "_accelerate(map_owner, map_address, key, value, addressof)\n--\n\n"
	 "Answer in C from now on, where ctypes is as expected; whether it is.  ``key`` and ``value`` are (size in bytes, numbers, ctypes class of "
	 "a\nstruct or None for one integer, has that class padding), and each of numbers, which are "
	 "all\nthere is in it or none, is (offset, size, is it signed, is it a bool)."},
	{NULL},
};

static PyType_Slot slots[] = {
	{Py_tp_doc, "Element access in C; see c_src/elements.c."},
	{Py_mp_subscript, elements_getitem},
	{Py_mp_ass_subscript, elements_setitem},
	{Py_sq_contains, elements_contains},
	{Py_tp_methods, methods},
	{Py_tp_traverse, elements_traverse},
	{Py_tp_clear, elements_clear},
	{Py_tp_dealloc, elements_dealloc},
	{0, NULL},
};

static PyType_Spec spec = {
	.name = "pybpf._fast.Elements",
	.basicsize = sizeof(struct elements),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
	.slots = slots,
};

PyObject *pybpf_elements_type(void)
{
	name_getitem = PyUnicode_InternFromString("_getitem");
	name_setitem = PyUnicode_InternFromString("_setitem");
	name_delitem = PyUnicode_InternFromString("_delitem");
	name_contains = PyUnicode_InternFromString("_contains");
	if (!name_getitem || !name_setitem || !name_delitem || !name_contains)
		return NULL;
	return PyType_FromSpec(&spec);
}
