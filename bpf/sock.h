/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The few fields of the kernel's sockets that the programs read, by CO-RE. */
#ifndef SLICELB_SOCK_H
#define SLICELB_SOCK_H

#include "kernel.h"

#define AF_INET 2
#define AF_INET6 10
#define INADDR_LOOPBACK 0x7f000001

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct net {
	__u64 net_cookie;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_addr {
	union {
		__u32 u6_addr32[4];
	} in6_u;
};

struct sock_common {
	__u32 skc_daddr;     /* network order */
	__u32 skc_rcv_saddr; /* network order */
	__u16 skc_dport;     /* network order */
	__u16 skc_num;	     /* host order */
	unsigned short skc_family;
	volatile unsigned char skc_state;
	int skc_bound_dev_if;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
};

struct sock {
	struct sock_common __sk_common;
	int sk_err;
	__u8 sk_kern_sock : 1;
};

struct tcp_sock;
struct udp_sock;

/* What iterators are called with. */
struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

struct bpf_iter__udp {
	struct bpf_iter_meta *meta;
	struct udp_sock *udp_sk;
};

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct sock *sk;
	void *value;
};

#pragma clang attribute pop

#endif
