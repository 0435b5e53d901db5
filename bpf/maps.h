/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Every map. Who writes it stands beside it; sizes that the loader may change are defaults. */
#ifndef SLICELB_MAPS_H
#define SLICELB_MAPS_H

#include "socketmaps.h"

/* Written by the reconciler. */
SLB_HASH(frontends, SLB_FRONTENDS, struct slb_frontend_key, __u64);
SLB_WORDS(frontend_refs, SLB_FRONTENDS);
SLB_WORDS(cells, SLB_CELLS);
SLB_WORDS(cell_affinity, SLB_CELLS);
SLB_HASH(views, SLB_VIEWS, struct slb_view_key, __u64);
SLB_WORDS(groups, SLB_GROUPS);
SLB_HASH(expect, SLB_EXPECT, struct slb_expect_key, __u64);
SLB_HASH(expect_patterns, SLB_EXPECT, struct slb_pattern_key, struct slb_pattern);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLB_BACKENDS);
	__type(key, __u32);
	__type(value, struct slb_backend);
} backends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLB_SLOTS / SLB_SLOTS_PER_ELEM);
	__type(key, __u32);
	__type(value, struct slb_slots);
} slots SEC(".maps");

/* Written by the reconciler and, at mkdir and rmdir, by the kernel (anchor.h). */
SLB_HASH(cgroups, SLB_CGROUPS, __u64, __u64);

/* Written by the reconciler for people and for its own next start. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLB_CELLS);
	__type(key, __u32);
	__type(value, struct slb_cell_info);
} cell_infos SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLB_GROUPS);
	__type(key, __u32);
	__type(value, struct slb_group_info);
} group_infos SEC(".maps");

/* Written by the programs: what sockets remember. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SLB_UDP_FLOWS);
	__type(key, struct slb_udp_choice_key);
	__type(value, struct slb_udp_choice);
} udp_choice SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SLB_UDP_FLOWS);
	__type(key, struct slb_udp_reverse_key);
	__type(value, struct slb_udp_reverse);
} udp_reverse SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SLB_UDP_FLOWS);
	__type(key, struct slb_affinity_key);
	__type(value, struct slb_affinity);
} affinity SEC(".maps");

/* Written by the programs: counters, for each CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLB_CELLS);
	__type(key, __u32);
	__type(value, struct slb_counters);
} cell_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLB_PAIRS);
	__type(key, __u32);
	__type(value, struct slb_counters);
} pair_counters SEC(".maps");

/* Claimed by the programs, freed by the reconciler. */
SLB_WORDS(pair_keys, SLB_PAIRS);

/* Written by the programs, for all CPUs; user space corrects the live counts. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLB_BACKENDS);
	__type(key, __u32);
	__type(value, struct slb_backend_counters);
} backend_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLB_STATS);
	__type(key, __u32);
	__type(value, __u64);
} stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, SLB_EVENTS_BYTES);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, SLB_FAILURES_BYTES);
} failures SEC(".maps");

/* Decisions that somebody wants to hear of; see event.h. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, SLB_DECISIONS_BYTES);
} decisions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLB_GROUPS);
	__type(key, __u32);
	__type(value, struct slb_tell_budget);
} tell_budgets SEC(".maps");

/* Written by the reconciler: see "policy" in api.h. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLB_POLICY_LINES);
	__type(key, __u32);
	__type(value, struct slb_policy_line);
} policy_lines SEC(".maps");

/* Two banks, so that a new policy's rules count from zero. Index: bank, rule - 1. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * SLB_RULES);
	__type(key, __u32);
	__type(value, __u64);
} rule_hits SEC(".maps");

/* Written by the programs, for calls that a rule with "audit" lets through. */
SLB_HASH(policy_seen, SLB_SEEN, struct slb_seen_key, struct slb_seen);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLB_CELLS);
	__type(key, __u32);
	__type(value, struct slb_latency);
} latencies SEC(".maps");

/* Scratch of the mkdir program: a key is too large for its stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct slb_expect_key);
} scratch SEC(".maps");

/* ---- globals ------------------------------------------------------------ */

/* The daemon's network namespace (SO_NETNS_COOKIE): loopback backends are its own. */
volatile __u64 host_netns_cookie;

/* What watchers want, written by the daemon; see api.h. */
volatile __u64 watch_until;
volatile __u64 watch_told;  /* bits by enum slb_told */
volatile __u64 watch_group; /* or SLB_WATCH_ANY_GROUP */
volatile __u64 watch_cells; /* two default cells of 32 bits: a VIP's; 0 = any */
volatile __u64 time_until;  /* connects are timed */

/* The policy in force, read once by each call: see "policy" in api.h. */
volatile __u64 policy_word;

/* How many more cgroups may be mapped whose directories others than root made; see anchor.h. */
volatile __s64 cgroup_room;

/*
 * One bit for each hashed address that has a frontend, or a backend. A miss
 * here is what nearly every connect of a host pays; set before the entry is
 * inserted, cleared after it is gone.
 */
volatile __u64 frontend_filter[1 << (SLB_FILTER_BITS - 6)];
volatile __u64 backend_filter[1 << (SLB_FILTER_BITS - 6)];

static __always_inline bool filter_has(volatile __u64 *filter, const struct slb_addr *a)
{
	__u32 bit = SLB_FILTER_BIT(a);

	return filter[(bit >> 6) & ((1 << (SLB_FILTER_BITS - 6)) - 1)] >> (bit & 63) & 1;
}

#endif
