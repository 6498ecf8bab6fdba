/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pybpf._fast: what is called so often that cffi's 300 ns a call are too much, elements of maps,
 * records of rings and test runs of programs.  docs/architecture.md has the figures.
 */
#include "fast.h"

static int add(PyObject *module, const char *name, PyObject *value)
{
	if (value && PyModule_AddObject(module, name, value) == 0)
		return 0;
	Py_XDECREF(value);
	return -1;
}

static int exec_module(PyObject *module)
{
	if (add(module, "Elements", pybpf_elements_type()) < 0)
		return -1;
	if (add(module, "Records", pybpf_records_type()) < 0)
		return -1;
	if (add(module, "TestRunResult", pybpf_test_run_result_type()) < 0)
		return -1;
	return add(module, "Runs", pybpf_runs_type());
}

static PyMethodDef methods[] = {
	{"test_run", (PyCFunction)(void (*)(void))pybpf_test_run, METH_FASTCALL,
	 "test_run(program, data, data_out_size, ctx, ctx_out, repeat, flags, cpu, batch_size, /)\n--\n\n"
	 "A TestRunResult, or the errno of the refusal.  ``program`` is a struct pybpf_fd's address,\n"
	 "``ctx_out`` is 0 for no context back, 1 for one written in place, 2 for one written apart."},
	{NULL},
};

static PyModuleDef_Slot slots[] = {
	{Py_mod_exec, exec_module},
#ifdef Py_mod_gil
	{Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
	{0, NULL},
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT,
	.m_name = "pybpf._fast",
	.m_doc = "The parts of Map, Program and Reader that are called millions of times.",
	.m_methods = methods,
	.m_slots = slots,
};

PyMODINIT_FUNC PyInit__fast(void)
{
	return PyModuleDef_Init(&definition);
}
