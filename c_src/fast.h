/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the module pybpf._fast give each other. */
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* New references, or NULL with an exception. */
PyObject *pybpf_elements_type(void);
PyObject *pybpf_records_type(void);
PyObject *pybpf_test_run_result_type(void);
PyObject *pybpf_runs_type(void);

PyObject *pybpf_test_run(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
