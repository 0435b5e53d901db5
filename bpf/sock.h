/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The few fields of the kernel's sockets that the programs read, by CO-RE. */
#ifndef SLICELB_SOCK_H
#define SLICELB_SOCK_H

#include "kernel.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct sock {
	int sk_err;
};

struct tcp_sock;

#pragma clang attribute pop

#endif
