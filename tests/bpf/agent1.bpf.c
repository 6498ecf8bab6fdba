// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
#define VERSION 1
#include "agent.h"
