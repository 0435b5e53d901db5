//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Iterators over sockets, run by the daemon: which ones are connected to a
 * backend that has gone, and an end to them. An object of its own, loaded when
 * it is first needed; the maps are the other object's.
 */
#include "sock.h"
#include "socketmaps.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* In no map's type: named here so that bpf2go finds it. */
const struct {
	struct slb_doomed_socket socket;
} *slb_sweep_types __attribute__((unused));

extern int bpf_sock_destroy(struct sock_common *sk) __ksym;

/* Has the backend that connect chose gone, or is it down? A draining one has not gone. */
static __always_inline bool backend_gone(const struct slb_origin *o)
{
	__u32 index = o->backend_index;
	__u64 *word = bpf_map_lookup_elem(&backend_cells, &index), w;

	if (!word)
		return false;
	w = READ_ONCE(*word);
	return SLB_BACKEND_GEN(w) != o->backend_gen || SLB_BACKEND_STATE(w) == SLB_BACKEND_FREE ||
	       SLB_BACKEND_STATE(w) == SLB_BACKEND_DOWN;
}

/* Does its VIP want such a socket closed when it may not go on? */
static __always_inline bool vip_terminates(const struct slb_origin *o)
{
	__u32 index = o->backend_index;
	__u64 *word = bpf_map_lookup_elem(&backend_traits, &index), w;

	if (!word)
		return false;
	w = READ_ONCE(*word);
	if (SLB_TRAITS_GEN(w) != o->backend_gen)
		w = o->terminate; /* the index is another's; what held when it connected */
	return w & (o->proto == IPPROTO_UDP ? SLB_TRAIT_TERMINATE_UDP : SLB_TRAIT_TERMINATE_TCP);
}

static __always_inline bool origin_doomed(const struct slb_origin *o)
{
	return o->layout == SLB_LAYOUT && backend_gone(o) && vip_terminates(o);
}

/*
 * Is the socket connected, at this moment, to what connect chose? One that has
 * connected elsewhere since, or nowhere, is none of ours.
 */
static __always_inline bool origin_is_peer(const struct slb_origin *o, struct sock_common *sk)
{
	if (sk->skc_dport != o->backend_port_be || sk->skc_state == BPF_TCP_CLOSE ||
	    sk->skc_state == BPF_TCP_LISTEN || sk->skc_state == BPF_TCP_TIME_WAIT)
		return false;
	if (sk->skc_family == AF_INET)
		return sk->skc_daddr == o->backend.word_be[3];
	return sk->skc_v6_daddr.in6_u.u6_addr32[0] == o->backend.word_be[0] &&
	       sk->skc_v6_daddr.in6_u.u6_addr32[1] == o->backend.word_be[1] &&
	       sk->skc_v6_daddr.in6_u.u6_addr32[2] == o->backend.word_be[2] &&
	       sk->skc_v6_daddr.in6_u.u6_addr32[3] == o->backend.word_be[3];
}

static __always_inline int write_socket(struct bpf_iter__bpf_sk_storage_map *ctx,
					const struct slb_origin *o, struct sock *sk)
{
	struct slb_doomed_socket out = {};

	out.netns = sk->__sk_common.skc_net.net->net_cookie;
	out.cookie = bpf_get_socket_cookie(sk);
	out.family = sk->__sk_common.skc_family;
	out.proto = o->proto;
	out.device = sk->__sk_common.skc_bound_dev_if;
	out.remote = o->backend;
	out.remote_port_be = o->backend_port_be;
	out.vip = o->vip;
	out.vip_port_be = o->vip_port_be;
	out.group = o->group;
	out.group_check = o->group_check;
	out.frontend = o->frontend;
	out.frontend_gen = o->frontend_gen;
	out.local_port_be = bpf_htons(sk->__sk_common.skc_num);
	if (out.family == AF_INET) {
		out.local.word_be[2] = bpf_htonl(0xffff);
		out.local.word_be[3] = sk->__sk_common.skc_rcv_saddr;
	} else {
		out.local.word_be[0] = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[0];
		out.local.word_be[1] = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[1];
		out.local.word_be[2] = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[2];
		out.local.word_be[3] = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[3];
	}
	bpf_seq_write(ctx->meta->seq, &out, sizeof(out));
	return 0;
}

/* Of all sockets that a VIP ever sent, in every network namespace. */
SEC("iter/bpf_sk_storage_map")
int slb_doomed(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct slb_origin *o = ctx->value;
	struct sock *sk = ctx->sk;

	if (!sk || !o || !origin_doomed(o) || !origin_is_peer(o, &sk->__sk_common))
		return 0;
	return write_socket(ctx, o, sk);
}

SEC("iter/bpf_sk_storage_map")
int slb_sent(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct slb_origin *o = ctx->value;
	struct sock *sk = ctx->sk;

	if (!sk || !o || o->layout != SLB_LAYOUT || !vip_terminates(o) ||
	    !origin_is_peer(o, &sk->__sk_common))
		return 0;
	return write_socket(ctx, o, sk);
}

/* ---- of the network namespace in which the iterator was opened ---------------- */

SEC("iter/tcp")
int slb_close_tcp(struct bpf_iter__tcp *ctx)
{
	struct sock_common *sk = ctx->sk_common;
	struct slb_origin *o;

	if (!sk)
		return 0;
	o = bpf_sk_storage_get(&origins, sk, NULL, 0);
	if (o && origin_doomed(o) && origin_is_peer(o, sk))
		bpf_sock_destroy(sk);
	return 0;
}

SEC("iter/udp")
int slb_close_udp(struct bpf_iter__udp *ctx)
{
	struct sock_common *sk = (struct sock_common *)ctx->udp_sk;
	struct slb_origin *o;

	if (!sk)
		return 0;
	o = bpf_sk_storage_get(&origins, sk, NULL, 0);
	if (o && origin_doomed(o) && origin_is_peer(o, sk))
		bpf_sock_destroy(sk);
	return 0;
}
