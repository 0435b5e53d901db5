/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The one contract between the programs and Go. bpf2go turns the structs below
 * into Go types; nothing is mirrored by hand.
 *
 * Byte order: what comes from or goes into a sockaddr (address, port) is in
 * network byte order and named *_be or addr; everything else is in host order.
 * IPv4 addresses are stored v4-mapped (::ffff:a.b.c.d), so that one key serves
 * connect4, connect6 and the v4-mapped sockets in between.
 *
 * Change. An update of a hash map's entry is not atomic for its readers: the
 * old element's memory is reused at once, for another key too. So a hash entry
 * that programs read is inserted and deleted, never updated. What changes is
 * one aligned 8-byte word, stored once and read once:
 *   - a word in a BPF_F_MMAPABLE array, at the index that the entry names, or
 *   - the entry's own 8-byte value, stored in place by the set_word program.
 * A hash value carries a check of its key (SLB_CHECK), so that a reader whose
 * element was deleted and reused between look-up and read sees it.
 */
#ifndef SLICELB_API_H
#define SLICELB_API_H

#include <linux/types.h>

/*
 * Of everything that programs and processes of two versions may read of each
 * other: the set of maps, what lies in them, the bits of words. Raised when any of
 * that changes (TestLayout sees it).
 */
#define SLB_LAYOUT 1

/* ---- sizes ------------------------------------------------------------- */

#define SLB_FRONTENDS 65536	 /* frontends, and the words they name */
#define SLB_CELLS 32768		 /* one for each VIP and family, one for each view */
#define SLB_VIEWS 65536
#define SLB_BACKENDS 131072
#define SLB_SLOTS (2 << 20)	 /* default of [daemon] slots */
#define SLB_SLOTS_PER_ELEM 16	 /* an array's stride is 8 bytes at least: pack */
#define SLB_GROUPS (16384 + 1) /* as many as may be configured, and the host */
#define SLB_CGROUPS 131072
#define SLB_EXPECT 65536
#define SLB_PATTERNS_PER_NODE 16
#define SLB_PAIRS 16384		 /* group x cell counters; a power of two */
#define SLB_PAIR_PROBES 8
#define SLB_UDP_FLOWS 32768
#define SLB_EVENTS_BYTES (1 << 20)
#define SLB_FAILURES_BYTES (1 << 16)
#define SLB_DECISIONS_BYTES (1 << 21)
#define SLB_COMM_LEN 16
#define SLB_DIR_LEN 96	 /* what is told of a cgroup directory's name, NUL included */
#define SLB_NAME_LEN 64		 /* a group's or VIP's name, NUL included */
#define SLB_COMPONENT_LEN 256	 /* a cgroup directory's name, NUL included */
#define SLB_FILTER_BITS 20	 /* bits of a hashed address: 128 KiB a filter */
#define SLB_MAX_LEVEL 31	 /* deepest anchor; callers may be deeper */
#define SLB_POLICY_LINES 65536	 /* of 64 bytes: the policy in force and the next */
#define SLB_RULES 16384
#define SLB_SEEN 16384		 /* group x address that rules with "audit" have seen */

/* ---- addresses --------------------------------------------------------- */

/* in6_addr in network byte order; IPv4 as ::ffff:a.b.c.d. */
struct slb_addr {
	__u32 word_be[4];
};

/* Key of frontends. No implicit padding: all 24 bytes are compared. */
struct slb_frontend_key {
	struct slb_addr addr;
	__u16 port_be; /* 0 = every other port of the address, which is refused */
	__u8 proto; /* IPPROTO_TCP or IPPROTO_UDP */
	__u8 pad[5];
};

/*
 * A check of a key for the value that a hash keeps beside it: not a defence
 * against collisions, but against reading another entry's value.
 */
#define SLB_FRONTEND_CHECK(k)                                                   \
	((k)->addr.word_be[0] * 0x9e3779b1u ^ (k)->addr.word_be[1] * 0x85ebca6bu ^  \
	 (k)->addr.word_be[2] * 0xc2b2ae35u ^ (k)->addr.word_be[3] * 0x27d4eb2fu ^  \
	 ((__u32)(k)->port_be << 16 | (k)->proto))
#define SLB_VIEW_CHECK(k) ((k)->cell * 0x9e3779b1u ^ (k)->group)

/*
 * Bit of an address in frontend_filter and backend_filter. Words are loaded as
 * they lie in memory (network order, read natively).
 */
#define SLB_FILTER_BIT(a)                                                       \
	((((a)->word_be[0] ^ (a)->word_be[1] << 7) * 0xc2b2ae35u ^                  \
	  (a)->word_be[2] * 0x85ebca6bu ^ (a)->word_be[3] * 0x9e3779b1u) >>         \
	 (32 - SLB_FILTER_BITS))

/* ---- words ------------------------------------------------------------- */

/*
 * Value of frontends and views: the index in the low half, a check of the key
 * in the high half.
 */
#define SLB_REF(index, check) ((__u64)(index) | ((__u64)(check) << 32))
#define SLB_REF_INDEX(w) ((__u32)(w))
#define SLB_REF_CHECK(w) ((__u32)((w) >> 32))

/*
 * Word of frontend_refs: the default cell of the frontend's VIP and family, and
 * the generation of the frontend, which grows each time the index is reused, so
 * that state left by an earlier owner is recognised (D9). Cell 0 = the frontend
 * is gone. Index 0 of frontend_refs, cells, groups and backends is never given
 * out: zeroed memory names nothing (group 0 is the host).
 */
#define SLB_FRONTEND(cell, gen) ((__u64)(cell) | ((__u64)(gen) << 32))
#define SLB_FRONTEND_REST(w) ((w) >> 63) /* stands for every other port of its address */
#define SLB_FRONTEND_CELL(w) ((__u32)(w))
#define SLB_FRONTEND_GEN(w) ((__u32)((w) >> 32) & 0x7fffffff)

/*
 * Word of cells: what happens to a call.
 *   bits  0..27 base       first slot
 *   bits 28..45 count      slots; 0 unless action is SLB_BALANCE
 *   bits 46..47 algorithm  enum slb_algorithm; 0 unless action is SLB_BALANCE
 *   bits 48..51 action     enum slb_action
 *   bit  52     selective  views of this cell exist: {cell, group} is asked first
 *   bit  53     affinity   a word of cell_affinity says for how long
 *   bits 54..63 generation grows with every store, wraps
 */
#define SLB_CELL_BASE(w) ((__u32)((w) & 0xfffffff))
#define SLB_CELL_COUNT(w) ((__u32)(((w) >> 28) & 0x3ffff))
#define SLB_CELL_ALGORITHM(w) ((__u32)(((w) >> 46) & 3))
#define SLB_CELL_ACTION(w) ((__u32)(((w) >> 48) & 0xf))
#define SLB_CELL_SELECTIVE(w) (((w) >> 52) & 1)
#define SLB_CELL_AFFINITY(w) (((w) >> 53) & 1)
/* Neither random nor without affinity: most cells are, and look no further. */
#define SLB_CELL_STEERED(w) ((w) & (3ULL << 46 | 1ULL << 53))

/*
 * How one of a cell's slots is found. Weights are numbers of slots in all three;
 * a backend's slots lie side by side but for Maglev.
 */
enum slb_algorithm {
	SLB_RANDOM = 0, /* any slot */
	/*
	 * The better of two slots by open sockets over weight, of two backends if
	 * there are two. A slot says its backend's weight; the backend with the most
	 * slots comes last.
	 */
	SLB_LEAST = 1,
	SLB_MAGLEV = 2, /* the slot that the caller's key leads to (SLB_HASH_KEY) */
};

/* Where a key leads, in 32 bits: the slot is base + (that * count >> 32). */
#define SLB_HASH_KEY(key) ((__u32)((__u64)(key) * 0x9e3779b97f4a7c15ULL >> 32))

/*
 * Word of cell_affinity: for how long without a call a caller keeps its backend,
 * where the cell has affinity, and of any cell whether a change of it has callers
 * and unconnected UDP choose anew at once (VIPs of several pools, where a backend's
 * state does not say whether it still is in this cell's).
 */
#define SLB_AFFINITY_SECONDS(w) ((__u32)(w))
#define SLB_AFFINITY_STRICT(w) (((w) >> 32) & 1)

enum slb_action {
	SLB_NONE = 0,		/* nothing here: as if there were no frontend */
	SLB_BALANCE = 1,	/* a random slot of [base, base + count) */
	SLB_PASS_EXCEPT = 2,	/* untouched: the group stands in except */
	SLB_PASS_HIDDEN = 3,	/* untouched: the group is not among clients */
	SLB_PASS_DOWN = 4,	/* untouched: no backend, when_down = "pass" */
	SLB_REJECT_HIDDEN = 5,	/* EHOSTUNREACH: not among clients, hidden = "reject" */
	SLB_REJECT_DOWN = 6,	/* EHOSTUNREACH: no backend */
};

/*
 * Value of cgroups, stored in place.
 *   bits  0..19 group  index into groups; 0 = no group (the search goes on upwards)
 *   bits 20..39 node   state of the anchor automaton: what is expected below; 0 = nothing
 *   bit  40     split  this cgroup is a split child: a group of its own, with group's rules
 *   bit  41     counted  a split child that has counters of its own: SLB_PAIR_CHILD
 *   bits 42..63 check  low 22 bits of the cgroup id
 */
#define SLB_CGROUP_SPLIT (1ULL << 40)
#define SLB_CGROUP_COUNTED (1ULL << 41)
#define SLB_CGROUP_CHECK_SHIFT 42
#define SLB_CGROUP(rule, id) \
	(((rule) & ((1ULL << SLB_CGROUP_CHECK_SHIFT) - 1)) | ((__u64)(id) << SLB_CGROUP_CHECK_SHIFT))
#define SLB_CGROUP_GROUP(w) ((__u32)((w) & 0xfffff))
#define SLB_CGROUP_NODE(w) ((__u32)(((w) >> 20) & 0xfffff))
#define SLB_CGROUP_VALID(w, id) \
	(((w) >> SLB_CGROUP_CHECK_SHIFT) == ((id) & ((1ULL << (64 - SLB_CGROUP_CHECK_SHIFT)) - 1)))

/*
 * Value of expect and first word of expect_patterns: the group and node that a
 * new directory gets: a cgroup's word without a check.
 */
#define SLB_RULE(group, node) ((__u64)(group) | ((__u64)(node) << 20))

/* Word of groups. */
#define SLB_GROUP_USED (1ULL << 0)
#define SLB_GROUP_NO_TRANSLATE (1ULL << 1)
#define SLB_GROUP_DENY (1ULL << 2)   /* its default, for when the policy cannot be read */
#define SLB_GROUP_STRICT (1ULL << 3) /* sockets that pass no hook are refused */
#define SLB_GROUP_HASH(w) ((__u32)((w) >> 32)) /* of its name */

/* Word of backend_cells: state in the low half, generation in the high half. */
#define SLB_BACKEND_STATE(w) ((__u32)(w))
#define SLB_BACKEND_GEN(w) ((__u32)((w) >> 32))

enum slb_backend_state {
	SLB_BACKEND_FREE = 0,
	SLB_BACKEND_ACTIVE = 1,
	SLB_BACKEND_DRAINING = 2, /* in no slot; UDP flows that have it keep it */
	SLB_BACKEND_DOWN = 3,	  /* in no slot; UDP flows choose anew */
};

/*
 * Word of backend_traits: what is done with a backend's sockets beside choosing
 * it. Flags in the low half, the backend's generation in the high half. It stays
 * when the backend goes, until its index is given to another: sockets that a
 * removed backend still has are known by it.
 */
#define SLB_TRAIT_PASSIVE (1ULL << 0)	    /* a failed connect is reported */
#define SLB_TRAIT_REPORTED (1ULL << 1)	    /* one was: no more until user space clears this */
#define SLB_TRAIT_TERMINATE_UDP (1ULL << 2) /* its sockets are closed when it goes */
#define SLB_TRAIT_TERMINATE_TCP (1ULL << 3)
#define SLB_TRAIT_TERMINATE (SLB_TRAIT_TERMINATE_UDP | SLB_TRAIT_TERMINATE_TCP)
#define SLB_TRAITS(flags, gen) ((__u64)(flags) | ((__u64)(gen) << 32))
#define SLB_TRAITS_GEN(w) ((__u32)((w) >> 32))

/* ---- policy ------------------------------------------------------------- */

/*
 * A policy is a run of lines in policy_lines, written while nothing names it and
 * constant until a grace period after policy_word has named another. So a flip of
 * that one word changes all of it. Whole numbers; offsets count from the first
 * line. Addresses here are in host order, ports too.
 *
 * Word of the policy:
 *   bits  0..31 base      first line; 0 = there is no policy
 *   bit  32     deny      some group's default denies
 *   bit  33     host deny the host's does
 *   bit  34     bank      which half of rule_hits counts
 *   bits 48..63 generation
 */
#define SLB_POLICY_BASE(w) ((__u32)(w))
#define SLB_POLICY_DENY (1ULL << 32)
#define SLB_POLICY_HOST_DENY (1ULL << 33)
#define SLB_POLICY_BANK(w) ((__u32)((w) >> 34) & 1)

struct slb_policy_line {
	__u64 w[8];
};

/*
 * The lines of a policy:
 *   0         head, below
 *   1         prefix lengths of IPv4 networks, one byte each, rising
 *   2..4      of IPv6 networks
 *   8..135    names4: a bit for each upper half of an IPv4 address (as it lies in
 *             memory) in which a network lies
 *   136..263  names6: a bit for each hash of the upper 32 bits of an IPv6 address
 *   264..     what the head says
 */
#define SLB_POLICY_LENGTHS4 1
#define SLB_POLICY_LENGTHS6 2
#define SLB_POLICY_NAMES4 8
#define SLB_POLICY_NAMES6 136
#define SLB_POLICY_DATA 264
#define SLB_POLICY_NAMES6_BIT(a) ((a)->word_be[0] * 0x9e3779b1u >> 16)

/* Words of the head. */
enum slb_policy_head {
	SLB_POLICY_SUM,	    /* of the content */
	SLB_POLICY_V4,	    /* hash of IPv4 networks: SLB_POLICY_HASH */
	SLB_POLICY_V6,	    /* of IPv6 networks */
	SLB_POLICY_EXCEPT,  /* of exceptions */
	SLB_POLICY_ROWS,    /* first line of rows, number of rows << 32 */
	SLB_POLICY_CLASSES, /* first line of classes, number of groups << 32 */
	SLB_POLICY_SIZE,    /* lines in all, rules << 32 */
};

/* A hash: its first line, its number of lines - 1 (a mask), and prefix lengths. */
#define SLB_POLICY_HASH_LINE(w) ((__u32)(w) & 0xffffff)
#define SLB_POLICY_HASH_MASK(w) ((__u32)((w) >> 24) & 0xffffff)
#define SLB_POLICY_HASH_LENGTHS(w) ((__u32)((w) >> 48) & 0xff)
#define SLB_POLICY_HOME(key, mask) \
	((__u32)((key) * 0x9e3779b97f4a7c15ULL >> 32) & (mask))
#define SLB_POLICY_PROBES 4 /* lines from home on; a line that is not full ends it */

/*
 * A network of IPv4, a word: address, prefix length + 1, and its table (26 bits).
 * Of IPv6, three words: address, and the third {prefix length + 1:8, table:32};
 * two to a line.
 */
#define SLB_POLICY_NET4(addr, len) ((__u64)(addr) | (__u64)((len) + 1) << 32)
#define SLB_POLICY_NET4_KEY ((1ULL << 38) - 1)
#define SLB_POLICY_NET4_TABLE(w) ((__u32)((w) >> 38))
#define SLB_POLICY_NET6_TABLE(w) ((__u32)((w) >> 8))

/*
 * A table of ports begins at a word (counted from the first line's): their number,
 * then as many words, rising by port, the first 0: {port:16, row for TCP:24, row
 * for UDP:24}. Row 0: no rule names this.
 */
#define SLB_POLICY_PORT(w) ((__u32)(w) & 0xffff)
#define SLB_POLICY_PORT_TCP(w) ((__u32)((w) >> 16) & 0xffffff)
#define SLB_POLICY_PORT_UDP(w) ((__u32)((w) >> 40))

/* A row, half a word: what groups get that have no exception. */
#define SLB_POLICY_ROW_ACTION(r) ((r) & 3)
#define SLB_POLICY_ROW_EXCEPT (1U << 2) /* there are exceptions */
#define SLB_POLICY_ROW_RULE(r) ((r) >> 8)

/* An exception, a word: {row:24, class:16, action:2, rule:22}. */
#define SLB_POLICY_EXCEPTION(row, class) ((__u64)(row) | (__u64)(class) << 24)
#define SLB_POLICY_EXCEPTION_KEY ((1ULL << 40) - 1)
#define SLB_POLICY_EXCEPTION_ACTION(w) ((__u32)((w) >> 40) & 3)
#define SLB_POLICY_EXCEPTION_RULE(w) ((__u32)((w) >> 42))

/*
 * The class of a group, a quarter of a word, by the group's index: groups whom the
 * rules treat alike share one. Groups beyond the last are the host's.
 */
#define SLB_POLICY_CLASS(c) ((c) & 0x7fff)
#define SLB_POLICY_CLASS_DENY 0x8000 /* its default */
#define SLB_POLICY_EXEMPT 0	     /* the class that no rule concerns */

/* Rules are numbered from 1 in load order; 0 = no rule, the default. */
enum slb_policy_action {
	SLB_POLICY_DEFAULT = 0,
	SLB_POLICY_ALLOW = 1,
	SLB_POLICY_REFUSE = 2, /* EPERM */
	SLB_POLICY_AUDIT = 3,  /* allowed, and recorded in policy_seen */
};

/* Key of policy_seen: who asked for what. */
struct slb_seen_key {
	struct slb_addr addr;
	__u32 group;
	__u16 port_be;
	__u8 proto;
	__u8 pad;
};

struct slb_seen {
	__u64 count;
	__u64 last_ns; /* CLOCK_BOOTTIME */
	__u32 rule;
	__u32 pad;
};

/* ---- views ------------------------------------------------------------- */

struct slb_view_key {
	__u32 cell; /* the default cell */
	__u32 group;
};

/* ---- backends ---------------------------------------------------------- */

#define SLB_BACKEND_LOOPBACK (1 << 0) /* serves the daemon's network namespace only */

/* Element of backends: written while nothing names it, then constant. */
struct slb_backend {
	struct slb_addr addr;
	__u16 port_be;
	__u8 flags;
	__u8 pad;
	__u32 generation; /* equals the generation in backend_cells while valid */
	__u32 cell;	  /* whose backend it is: a default cell, whose views share it */
	__u32 spare;
};

/*
 * Element of slots: sixteen of them, each a backend's index, and for SLB_LEAST
 * the number of slots that the backend has in this cell.
 */
#define SLB_SLOT_BITS 17 /* of the index: SLB_BACKENDS */
#define SLB_SLOT_BACKEND(s) ((s) & ((1u << SLB_SLOT_BITS) - 1))
#define SLB_SLOT_WEIGHT(s) ((s) >> SLB_SLOT_BITS)

struct slb_slots {
	__u32 backend[SLB_SLOTS_PER_ELEM];
};

/* ---- what a socket remembers -------------------------------------------- */

/*
 * Socket storage of connect: how to name the VIP again. Dies with the socket;
 * valid only while the peer is still this backend and the frontend has kept
 * its generation.
 */
struct slb_origin {
	struct slb_addr vip;
	struct slb_addr backend;
	__u16 vip_port_be;
	__u16 backend_port_be;
	__u8 layout; /* SLB_LAYOUT; 0 = empty */
	__u8 proto;
	__u8 elsewhere; /* 1 = since connect, this backend was asked by another VIP's name */
	__u8 terminate; /* SLB_TRAIT_TERMINATE_* of then: for when the index is another backend's */
	__u32 frontend;
	__u32 frontend_gen;
	__u32 backend_index;
	__u32 backend_gen;
	__u32 group;
	__u32 cell;	/* that decided: default or view */
	__u8 counted;	/* 1 = the socket is one of this backend's in backend_counters */
	__u8 pad[3];
	__u32 group_check; /* the group's name, hashed, as in its word: its index may be another's */
	__u64 connect_ns; /* CLOCK_MONOTONIC of the connect, where somebody wants to know; else 0 */
};

/* udp_choice: which backend an unconnected UDP socket uses for a VIP. */
struct slb_udp_choice_key {
	__u64 cookie;
	__u32 frontend;
	__u32 frontend_gen;
};

struct slb_udp_choice {
	struct slb_udp_choice_key key; /* LRU elements are reused at will: checked after reading */
	__u32 backend;
	__u32 backend_gen;
	__u32 cell; /* that decided; another one decides anew */
	__u16 layout;
	__u16 pad;
	__u64 word; /* the cell's, when the backend was chosen */
};

/* udp_reverse: which VIP an unconnected UDP socket means by a backend. */
struct slb_udp_reverse_key {
	__u64 cookie;
	struct slb_addr addr;
	__u16 port_be;
	__u8 pad[6];
};

struct slb_udp_reverse {
	struct slb_udp_reverse_key key;
	struct slb_addr vip;
	__u16 vip_port_be;
	__u16 layout;
	__u32 frontend;
	__u32 frontend_gen;
	__u32 pad;
	__u64 spare;
};

/*
 * affinity: which backend a caller keeps. Who calls is the cgroup at the split
 * level, else SLB_WHO_GROUP and the group with its name's hash.
 */
#define SLB_WHO_GROUP(hash, index) (1ULL << 63 | (__u64)(hash) << 20 | (index))

struct slb_affinity_key {
	__u64 who;
	__u64 netns; /* cookie */
	__u32 cell;  /* that decided */
	__u32 pad;
};

struct slb_affinity {
	struct slb_affinity_key key; /* LRU elements are reused at will: checked after reading */
	__u64 used_ns;		     /* CLOCK_MONOTONIC, within a sixteenth of the cell's time */
	__u64 word;		     /* the cell's, when the backend was chosen */
	__u32 backend;
	__u32 backend_gen;
	__u16 layout;
	__u16 pad[3];
	__u64 spare;
};

/* ---- the anchor automaton ---------------------------------------------- */

/*
 * Key of expect: below a cgroup whose word has this node, a directory of this
 * name. Zero-padded: all bytes are compared. name_len excludes the NUL.
 * name_len 0 is the node's rule for every other name (split anchors look for
 * their children at any depth).
 */
struct slb_expect_key {
	__u32 node;
	__u32 name_len;
	char name[SLB_COMPONENT_LEN];
};

/* Key of expect_patterns: the n-th pattern of a node, from 0, without holes. */
struct slb_pattern_key {
	__u32 node;
	__u32 ordinal;
};

/* A name of at least prefix_len + suffix_len bytes that starts and ends so. */
struct slb_pattern {
	__u64 rule; /* SLB_RULE */
	__u32 prefix_len;
	__u32 suffix_len;
	char prefix[SLB_COMPONENT_LEN];
	char suffix[SLB_COMPONENT_LEN];
};

/* ---- names, for people: read by no program ------------------------------ */

struct slb_cell_info {
	char vip[SLB_NAME_LEN];
	char group[SLB_NAME_LEN]; /* of a view; empty for a default cell */
	__u8 family;		  /* 4 or 6; 0 = the cell is free */
	__u8 pad[3];
	__u32 of; /* of a view: its default cell */
};

struct slb_group_info {
	char name[SLB_NAME_LEN]; /* empty = free */
};

/* ---- counters ----------------------------------------------------------- */

/*
 * Word of pair_keys: whose counters stand at this index of pair_counters; 0 =
 * nobody's. The table is open-addressed: an owner is within SLB_PAIR_PROBES of
 * SLB_PAIR_HOME. An index that user space has freed may be claimed by a pair
 * that has counted further on already: a pair's count is the sum over all
 * indexes with its key.
 */
#define SLB_PAIR(cell, group) ((__u64)(cell) << 32 | (group))
/* In place of a group: a split child, by its cgroup's id. Its calls count for its group too. */
#define SLB_PAIR_CHILD(id) (1U << 31 | ((__u32)(id) & 0x7fffffff))
#define SLB_PAIR_HOME(pair) \
	((__u32)((pair) * 0x9e3779b97f4a7c15ULL >> 32) & (SLB_PAIRS - 1))

/* Per CPU, by default cell, and by index of pair_keys. */
struct slb_counters {
	__u64 connects; /* connect() calls that were translated */
	__u64 flows;	/* choices made for unconnected UDP */
	__u64 passed;	/* left untouched by except, clients, translate or when_down */
	__u64 rejected; /* EHOSTUNREACH */
	__u64 denied;	/* EPERM, by policy */
};

/* In pair_keys, in place of a default cell: what no VIP has, networks of rules. */
#define SLB_CELL_NETWORKS 0xffffffffu

/*
 * By backend, for all CPUs at once: a choice compares two backends' open sockets,
 * which makes this line one that CPUs share, and what else a connect counts comes
 * with it. Half a cache line; added to atomically.
 */
struct slb_backend_counters {
	__s64 live;	 /* open sockets; below zero until a recount */
	__s64 recounted; /* what a recount has seen of them, since user space cleared it */
	__u64 connects;
	__u64 flows;
};

enum slb_stat {
	SLB_STAT_STORAGE_FAILED,      /* no storage, or no entry of udp_reverse: the peer's name is lost */
	SLB_STAT_LOOPBACK_NETNS,      /* loopback backend asked for from another netns */
	SLB_STAT_REPLY_UNKNOWN,	      /* datagram from a backend without a reverse entry */
	SLB_STAT_STALE_FRONTEND,      /* reverse look-up declined: the frontend is gone */
	SLB_STAT_PAIRS_FULL,	      /* counted by the cell, but not by the group, or the split child */
	SLB_STAT_CGROUPS_FULL,	      /* an anchor could not be mapped by the kernel */
	SLB_STAT_EVENTS_LOST,	      /* ring buffer full: user space looks everywhere */
	SLB_STAT_ANCHORS_MAPPED,      /* directories mapped before mkdir returned */
	SLB_STAT_FAILURES_LOST,	      /* ring buffer full: the backend's next failure is reported */
	SLB_STAT_DECISIONS_LOST,      /* decisions to be told that found their ring buffer full */
	SLB_STAT_POLICY_BROKEN,	      /* the policy could not be read: the group's default decided */
	SLB_STAT_SEEN_FULL,	      /* an audited call found no room in policy_seen */
	SLB_STAT_STRICT_REFUSED,      /* sockets refused to groups with strict = true */
	SLB_STATS
};

/* ---- events ------------------------------------------------------------- */

enum slb_event_kind {
	SLB_EVENT_MKDIR = 1,
	SLB_EVENT_RMDIR = 2,
};

/* In events: a hint to look, never a state. */
struct slb_cgroup_event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 id;
	__u64 parent;
	__u32 kind;
	__u32 mapped; /* 1 = the kernel inserted or deleted an entry */
};

/*
 * In failures: a connect to a backend failed in the daemon's network namespace.
 * A reason to look, never a verdict. At most one for each backend until user
 * space has cleared SLB_TRAIT_REPORTED.
 */
struct slb_failure {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u32 backend; /* index */
	__u32 backend_gen;
	__u32 error; /* errno; 0 = given up by the caller after retransmits */
	__u32 pad;
};

/*
 * What the iterators of sweep.bpf.c write for a socket that is connected to what a
 * VIP chose for it: slb_doomed where that has gone, slb_sent for each; both where
 * the VIP may want it closed.
 */
struct slb_doomed_socket {
	__u64 netns;  /* the namespace's cookie */
	__u64 cookie; /* the socket's */
	struct slb_addr local;
	struct slb_addr remote;
	__u16 local_port_be;
	__u16 remote_port_be;
	__u8 family; /* AF_INET or AF_INET6: of the socket */
	__u8 proto;
	__u16 vip_port_be;
	__u32 device; /* that it is bound to; 0 = none */
	__u32 group;  /* of who connected it */
	__u32 group_check;
	__u32 frontend;
	__u32 frontend_gen;
	struct slb_addr vip;
	__u32 pad;
};

/* ---- decisions that are told ------------------------------------------------ */

/* What a call came to. From SLB_TOLD_REJECTED on it is told to nobody in particular, too. */
enum slb_told {
	SLB_TOLD_TRANSLATED = 1,
	SLB_TOLD_PASSED = 2,   /* left untouched, though the address is a frontend */
	SLB_TOLD_REJECTED = 3, /* EHOSTUNREACH */
	SLB_TOLD_DENIED = 4,   /* EPERM, by policy */
	SLB_TOLD_AUDITED = 5,  /* allowed, by a rule that wants to be told */
	SLB_TOLD_CONNECTED = 6, /* a TCP connect that was translated has its answer: took_us */
};

/* Why; 0 = there was nothing to decide. */
enum slb_reason {
	SLB_WHY_CHOSEN = 1,   /* a backend was drawn */
	SLB_WHY_GROUP = 2,    /* the group has translate = false */
	SLB_WHY_EXCEPT = 3,   /* it stands in except */
	SLB_WHY_HIDDEN = 4,   /* it is not among clients */
	SLB_WHY_DOWN = 5,     /* no backend takes connections */
	SLB_WHY_LOOPBACK = 6, /* the backend is on the loopback of another network namespace */
	SLB_WHY_GONE = 7,     /* the backend that was drawn went away meanwhile */
	SLB_WHY_RULE = 8,     /* a policy's rule */
	SLB_WHY_DEFAULT = 9,  /* the policy's default */
	SLB_WHY_ERROR = 10,   /* a policy could not be looked up */
	SLB_WHY_PORT = 11,    /* the VIP has no such port, and reject_unknown_ports */
	SLB_WHY_STRICT = 12,  /* a socket that no hook sees, of a strict group */
};

/* What was asked for. Values are part of the ring buffer's contract. */
enum slb_what {
	SLB_WHAT_CONNECT = 0,
	SLB_WHAT_SEND = 1,
	SLB_WHAT_SOCKET = 2, /* proto is the socket's type, port_be its protocol */
};

/* In decisions. Written once, never changed; addresses in network byte order. */
struct slb_decision_event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 cgroup;  /* of the caller */
	__u64 member;  /* the nearest cgroup that has a group: the caller's or above it; 0 = none */
	__u64 netns;   /* cookie of the socket's network namespace */
	__u64 socket;  /* cookie */
	struct slb_addr addr; /* that was asked for */
	struct slb_addr backend;
	__u16 port_be;
	__u16 backend_port_be; /* 0 = there is no backend */
	__u8 proto;
	__u8 what; /* enum slb_what */
	__u8 told; /* enum slb_told */
	__u8 reason; /* enum slb_reason */
	__u32 pid;  /* the thread, in the first pid namespace */
	__u32 tgid; /* the process */
	__u32 group;
	__u32 default_cell; /* names the VIP; 0 = none was asked for */
	__u32 cell;	    /* that decided: the default cell or a view */
	__u32 backend_index;
	__u32 rule; /* of the policy, as its writer numbers them; 0 = none */
	__u32 took_us; /* to connect; 0 = not known */
	char comm[SLB_COMM_LEN];
	char dir[SLB_DIR_LEN];	  /* the caller's cgroup's own name; cut where it is longer */
	char parent[SLB_DIR_LEN]; /* and that of the one above it */
};

/*
 * What is told without being asked for is bounded for each group: so many in a
 * window of 2^30 ns. What exceeds them is counted.
 */
#define SLB_TELL_BURST 10
#define SLB_TELL_WINDOW_SHIFT 30

/* Element of tell_budgets, by group. */
struct slb_tell_budget {
	__u64 window; /* in the high half its number, in the low half how many it had */
	__u64 suppressed;
};

/*
 * Element of latencies, by default cell: how long TCP connects took, from the
 * hook until the answer. Bucket i counts those of less than 2^(i + SLB_LATENCY_SHIFT)
 * us and not less than half of it, the last one all that took longer. Counted by
 * atomic additions; they wrap. Only while time_until, a lease like watch_until,
 * has not run out.
 */
#define SLB_LATENCY_BUCKETS 16
#define SLB_LATENCY_SHIFT 5

struct slb_latency {
	__u32 bucket[SLB_LATENCY_BUCKETS];
};

/*
 * What watchers want: the globals watch_*. watch_until is a lease
 * (CLOCK_MONOTONIC): 0 = nobody watches, which is all that a decision looks at
 * then. Who finds it run out clears it, so that a daemon that was killed costs
 * nothing for longer than the lease.
 */
#define SLB_WATCH_ANY_GROUP 0xffffffffu

/* ---- the argument of the syscall program slb_set_word ----------------------- */

enum slb_word_map {
	SLB_WORD_CGROUP = 1,  /* key.cgroup */
	SLB_WORD_EXPECT = 2,  /* key.expect */
	SLB_WORD_PATTERN = 3, /* key.pattern */
};

/* Stores word into an existing entry in place; the program returns 0, or -ENOENT where there is none, or no more. */
struct slb_word_store {
	__u32 map;
	__u32 pad;
	__u64 word;
	__u64 cgroup;
	struct slb_pattern_key pattern;
	struct slb_expect_key expect;
};

#endif
