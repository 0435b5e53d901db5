/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the kernel tells of TCP sockets. It is told of every socket of the host,
 * so whatever no VIP sent leaves at the first look; and in softirq as often as
 * not, where the current task is anybody.
 */
#ifndef SLICELB_SOCKOPS_H
#define SLICELB_SOCKOPS_H

#include "origin.h"
#include "sock.h"

/* Asks for further callbacks of this socket; the call replaces the mask, others' bits stay. */
static __always_inline void sockops_want(struct bpf_sock_ops *ctx, int flags)
{
	int have = ctx->bpf_sock_ops_cb_flags;

	if ((have | flags) != have)
		bpf_sock_ops_cb_flags_set(ctx, have | flags);
}

static __always_inline __u64 *traits_of(const struct slb_origin *o)
{
	__u32 index = o->backend_index;
	__u64 *word = bpf_map_lookup_elem(&backend_traits, &index);

	return word && SLB_TRAITS_GEN(READ_ONCE(*word)) == o->backend_gen ? word : NULL;
}

/* A connect begins; the hook has chosen the backend. */
static __always_inline void sockops_connect(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct slb_origin *o = origin_at(sk);
	__u64 *traits;

	if (!o)
		return;
	traits = traits_of(o);
	if (traits && READ_ONCE(*traits) & SLB_TRAIT_PASSIVE &&
	    bpf_get_netns_cookie(ctx) == host_netns_cookie)
		sockops_want(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
}

/* Did the backend fail, and not only this connect? */
static __always_inline bool sockops_failed(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
					   __u32 *error)
{
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);

	if (!tcp)
		return false;
	*error = ((struct sock *)tcp)->sk_err;
	switch (*error) {
	case ECONNREFUSED:
	case EHOSTUNREACH:
	case ETIMEDOUT:
		return true;
	default:
		*error = 0;
		return ctx->total_retrans >= 2;
	}
}

/*
 * A connect has come to nothing: reports it, unless a failure of this backend
 * was reported already. Only the daemon's network namespace counts: in one of
 * their own anybody can make anything fail (F31).
 */
static __always_inline void sockops_given_up(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct slb_origin *o = origin_at(sk);
	struct slb_failure *f;
	__u64 *traits, w;
	__u32 error;

	if (!o)
		return;
	traits = traits_of(o);
	if (!traits)
		return;
	w = READ_ONCE(*traits);
	if ((w & (SLB_TRAIT_PASSIVE | SLB_TRAIT_REPORTED)) != SLB_TRAIT_PASSIVE ||
	    bpf_get_netns_cookie(ctx) != host_netns_cookie || !sockops_failed(ctx, sk, &error))
		return;
	if (__sync_val_compare_and_swap(traits, w, w | SLB_TRAIT_REPORTED) != w)
		return;
	f = bpf_ringbuf_reserve(&failures, sizeof(*f), 0);
	if (!f) {
		count_stat(SLB_STAT_FAILURES_LOST);
		__sync_val_compare_and_swap(traits, w | SLB_TRAIT_REPORTED, w);
		return;
	}
	f->time_ns = bpf_ktime_get_ns();
	f->backend = o->backend_index;
	f->backend_gen = o->backend_gen;
	f->error = error;
	f->pad = 0;
	bpf_ringbuf_submit(f, 0);
}

/* args of BPF_SOCK_OPS_STATE_CB: the old state and the new one. */
static __always_inline bool sockops_left_syn_sent(struct bpf_sock_ops *ctx)
{
	return ctx->args[0] == BPF_TCP_SYN_SENT && ctx->args[1] == BPF_TCP_CLOSE;
}

#endif
