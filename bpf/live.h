/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Live counts: the sockets that a VIP sent to a backend and whose last descriptor
 * is open. A socket counts for one backend at most, and what it remembers says so
 * (slb_origin.counted). connect() counts and uncounts, under the socket's lock;
 * the last close uncounts. Refused, reset and AF_UNSPEC sockets count until they
 * are closed or connected again: for those no program runs.
 *
 * A recount walks what all sockets remember, in every network namespace, and user
 * space corrects the counts by it.
 */
#ifndef SLICELB_LIVE_H
#define SLICELB_LIVE_H

#include "backend.h"
#include "sock.h"

/*
 * Where a backend's sockets are counted, while it is the one that is meant. A
 * backend is FREE for a grace period before its index counts for another, so no
 * program that runs meanwhile counts for the wrong one.
 */
static __always_inline struct slb_backend_counters *live_of(__u32 index, __u32 gen)
{
	__u64 *word = bpf_map_lookup_elem(&backend_cells, &index), w;

	if (!word)
		return NULL;
	w = READ_ONCE(*word);
	if (SLB_BACKEND_GEN(w) != gen || SLB_BACKEND_STATE(w) == SLB_BACKEND_FREE)
		return NULL;
	return bpf_map_lookup_elem(&backend_counters, &index);
}

/*
 * Will a program see this socket's last close? The kernel runs none for its own
 * sockets (inet_release()): subflows of MPTCP and what lies below SMC, which any
 * user can make, NFS, SMB. They do not count, so that they cannot leak a count.
 *
 * Its own UDP sockets that connect (L2TP, NFS) cannot be told from others here: no
 * helper leads from a socket of IPv4 and UDP to the kernel's structure. One counts
 * for as long as it lives, and after that until two recounts have missed it.
 */
static __always_inline bool live_closes(struct bpf_sock *sk, __u8 proto)
{
	struct sock *kernel;

	if (proto != IPPROTO_TCP)
		return true;
	kernel = (struct sock *)bpf_skc_to_tcp_sock(sk);
	return kernel && !BPF_CORE_READ_BITFIELD(kernel, sk_kern_sock);
}

static __always_inline void live_leave(struct slb_origin *o)
{
	struct slb_backend_counters *c;

	if (!o->counted)
		return;
	o->counted = 0;
	c = live_of(o->backend_index, o->backend_gen);
	if (c)
		__sync_fetch_and_add(&c->live, -1);
}

static __always_inline void live_join(struct slb_origin *o)
{
	struct slb_backend_counters *c = live_of(o->backend_index, o->backend_gen);

	if (!c)
		return;
	o->counted = 1;
	__sync_fetch_and_add(&c->live, 1);
}

/* Adds one socket to the recount. */
static __always_inline int live_recounted(const struct slb_origin *o)
{
	struct slb_backend_counters *c;

	if (!o || o->layout != SLB_LAYOUT || !o->counted)
		return 0;
	c = live_of(o->backend_index, o->backend_gen);
	if (c)
		__sync_fetch_and_add(&c->recounted, 1);
	return 0;
}

#endif
