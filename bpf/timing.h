/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * How long TCP connects take: from the hook that chose the backend until its
 * answer is there. Only while somebody wants to know.
 */
#ifndef SLICELB_TIMING_H
#define SLICELB_TIMING_H

#include "event.h"
#include "sockops.h"

static __always_inline __u32 latency_bucket(__u64 us)
{
	__u32 bucket = 0;

	us >>= SLB_LATENCY_SHIFT;
	for (__u32 i = 0; i < SLB_LATENCY_BUCKETS - 1; i++) {
		if (!us)
			break;
		us >>= 1;
		bucket++;
	}
	return bucket;
}

/* Tells of a connect that has its answer. The current task is anybody. */
static __noinline int tell_connected(struct bpf_sock_ops *ctx, const struct slb_origin *o,
				     __u32 default_cell, __u64 now, __u64 us)
{
	struct slb_decision d = { .default_cell = default_cell };
	struct slb_decision_event *e;

	if (!o)
		return 0;
	d.group = o->group;
	if (!watched(&d, SLB_TOLD_CONNECTED, now))
		return 0;
	e = bpf_ringbuf_reserve(&decisions, sizeof(*e), 0);
	if (!e)
		return decision_lost();
	__builtin_memset(e, 0, sizeof(*e));
	e->time_ns = now;
	e->netns = bpf_get_netns_cookie(ctx);
	e->socket = bpf_get_socket_cookie(ctx);
	e->addr = o->vip;
	e->port_be = o->vip_port_be;
	e->backend = o->backend;
	e->backend_port_be = o->backend_port_be;
	e->proto = o->proto;
	e->told = SLB_TOLD_CONNECTED;
	e->reason = SLB_WHY_CHOSEN;
	e->group = o->group;
	e->default_cell = default_cell;
	e->cell = o->cell;
	e->backend_index = o->backend_index;
	e->took_us = us ? us : 1;
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	return 0;
}

static __always_inline void sockops_established(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	__u64 until = time_until, now = bpf_ktime_get_ns(), us, w;
	struct slb_origin *o = origin_at(sk);
	struct slb_latency *l;
	__u32 cell;

	if (!o || !o->connect_ns)
		return;
	us = (now - o->connect_ns) / 1000;
	o->connect_ns = 0;
	if (now > until) {
		if (until)
			__sync_val_compare_and_swap(&time_until, until, 0);
		return;
	}
	w = frontend_word(o->frontend);
	if (SLB_FRONTEND_GEN(w) != o->frontend_gen)
		return;
	cell = SLB_FRONTEND_CELL(w);
	l = cell ? bpf_map_lookup_elem(&latencies, &cell) : NULL;
	if (!l)
		return;
	__sync_fetch_and_add(&l->bucket[latency_bucket(us) & (SLB_LATENCY_BUCKETS - 1)], 1);
	if (watch_until)
		tell_connected(ctx, o, cell, now, us);
}

#endif
