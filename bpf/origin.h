/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef SLICELB_ORIGIN_H
#define SLICELB_ORIGIN_H

#include "choose.h"
#include "live.h"

static __always_inline bool addr_equal(const struct slb_addr *a, const struct slb_addr *b)
{
	return a->word_be[3] == b->word_be[3] && a->word_be[2] == b->word_be[2] &&
	       a->word_be[1] == b->word_be[1] && a->word_be[0] == b->word_be[0];
}

/* What connect remembered of a socket, or NULL. */
static __always_inline struct slb_origin *origin_at(struct bpf_sock *sk)
{
	struct slb_origin *o = bpf_sk_storage_get(&origins, sk, NULL, 0);

	return o && o->layout == SLB_LAYOUT ? o : NULL;
}

static __always_inline struct slb_origin *origin_of(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	return sk ? origin_at(sk) : NULL;
}

/* Is the socket connected, at this moment, to this address? */
static __always_inline bool peer_is(struct bpf_sock_addr *ctx, const struct slb_addr *addr,
				    __u16 port_be)
{
	struct bpf_sock *sk = ctx->sk;

	/* dst_port is the peer's port in network order; 0 after connect(AF_UNSPEC). */
	if (!sk || sk->dst_port != port_be)
		return false;
	/* The kernel fills in the IPv6 address for IPv6 sockets only; mapped, it is as ours. */
	if (sk->family == AF_INET)
		return sk->dst_ip4 == addr->word_be[3];
	return !((sk->dst_ip6[0] ^ addr->word_be[0]) | (sk->dst_ip6[1] ^ addr->word_be[1]) |
		 (sk->dst_ip6[2] ^ addr->word_be[2]) | (sk->dst_ip6[3] ^ addr->word_be[3]));
}

/* What connect remembered, if the backend that it chose is the socket's peer at this moment. */
static __always_inline struct slb_origin *origin_of_peer(struct bpf_sock_addr *ctx)
{
	struct slb_origin *o = origin_of(ctx);

	return o && peer_is(ctx, &o->backend, o->backend_port_be) ? o : NULL;
}

static __always_inline __u64 backend_traits_of(__u32 index)
{
	__u64 *word = bpf_map_lookup_elem(&backend_traits, &index);

	return word ? READ_ONCE(*word) : 0;
}

/* o is the socket's storage where it has one already. */
static __always_inline void origin_remember(struct bpf_sock_addr *ctx, struct slb_origin *o,
					    const struct slb_frontend_key *key,
					    const struct slb_decision *d, __u32 index,
					    const struct slb_backend *b)
{
	struct bpf_sock *sk = ctx->sk;
	__u64 *word;

	if (o)
		live_leave(o);
	else if (sk)
		o = bpf_sk_storage_get(&origins, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!o) {
		count_stat(SLB_STAT_STORAGE_FAILED);
		return;
	}
	o->vip = key->addr;
	o->vip_port_be = key->port_be;
	o->backend = b->addr;
	o->backend_port_be = b->port_be;
	o->proto = key->proto;
	o->elsewhere = 0;
	o->terminate = backend_traits_of(index) & SLB_TRAIT_TERMINATE;
	o->frontend = d->frontend;
	o->frontend_gen = d->frontend_gen;
	o->backend_index = index;
	o->backend_gen = b->generation;
	o->group = d->group;
	word = bpf_map_lookup_elem(&groups, &d->group);
	o->group_check = word ? READ_ONCE(*word) >> 32 : 0;
	o->connect_ns = time_until ? bpf_ktime_get_ns() : 0;
	o->cell = d->cell;
	o->layout = SLB_LAYOUT;
	if (sk && live_closes(sk, key->proto))
		live_join(o);
}

/* A socket that connects elsewhere has no past (D6, D7). */
static __always_inline void origin_forget(struct slb_origin *o)
{
	live_leave(o);
	o->layout = 0;
}

/*
 * Is peer the backend that connect chose for this socket, and its frontend
 * still the same? Then peer's name is the VIP.
 */
static __always_inline bool origin_names(const struct slb_origin *o,
					 const struct slb_frontend_key *peer)
{
	if (o->backend_port_be != peer->port_be || !addr_equal(&o->backend, &peer->addr))
		return false;
	if (frontend_alive(o->frontend, o->frontend_gen))
		return true;
	count_stat(SLB_STAT_STALE_FRONTEND);
	return false;
}

#endif
