/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The maps that say what a socket's backend has come to: the iterators read them too. */
#ifndef SLICELB_SOCKETMAPS_H
#define SLICELB_SOCKETMAPS_H

#include "api.h"
#include "kernel.h"

#define SLB_WORDS(map_name, n)                        \
	struct {                                      \
		__uint(type, BPF_MAP_TYPE_ARRAY);     \
		__uint(map_flags, BPF_F_MMAPABLE);    \
		__uint(max_entries, n);               \
		__type(key, __u32);                   \
		__type(value, __u64);                 \
	} map_name SEC(".maps")

#define SLB_HASH(map_name, n, key_type, value_type)   \
	struct {                                      \
		__uint(type, BPF_MAP_TYPE_HASH);      \
		__uint(map_flags, BPF_F_NO_PREALLOC); \
		__uint(max_entries, n);               \
		__type(key, key_type);                \
		__type(value, value_type);            \
	} map_name SEC(".maps")

/* Written by the reconciler. */
SLB_WORDS(backend_cells, SLB_BACKENDS);
SLB_WORDS(backend_traits, SLB_BACKENDS); /* one bit of it by the programs */

/* Written by the programs: what sockets remember. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct slb_origin);
} origins SEC(".maps");

#endif
