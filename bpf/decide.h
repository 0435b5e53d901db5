/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef SLICELB_DECIDE_H
#define SLICELB_DECIDE_H

#include "policy.h"

enum slb_verdict {
	SLB_UNTOUCHED, /* not ours, or ours and to be left alone */
	SLB_TRANSLATE,
	SLB_REJECT,
};

struct slb_decision {
	__u32 frontend;
	__u32 frontend_gen;
	__u32 default_cell; /* what is counted */
	__u32 cell;	    /* what decided: the default cell or the group's view */
	__u32 group;
	__u32 reason;  /* enum slb_reason; 0 = not a frontend */
	__u32 backend; /* that was chosen */
	__u8 what;     /* enum slb_what */
	bool denied;   /* by policy: EPERM */
	bool audited;  /* let through by a rule that wants to be told */
	__u32 rule;    /* of the policy, that decided; 0 = its default, or none */
	__u32 child;   /* the split child that is counted beside its group; 0 = none */
	bool split;    /* the member is a split child: a group of its own */
	__u8 unknown;  /* 1 = the address is a VIP's, the port is not, and it says to refuse it */
	__u64 word;    /* the cell's, read once */
	__u64 member;  /* the nearest cgroup that has a group: the caller's or above it; 0 = none */
};

/* The word of a frontend that still is the one meant; 0 = gone. */
static __always_inline __u64 frontend_word(__u32 index)
{
	__u64 *word = bpf_map_lookup_elem(&frontend_refs, &index);

	return word ? READ_ONCE(*word) : 0;
}

static __always_inline bool frontend_alive(__u32 index, __u32 gen)
{
	__u64 w = frontend_word(index);

	return SLB_FRONTEND_CELL(w) && SLB_FRONTEND_GEN(w) == gen;
}

static __always_inline __u64 cell_word(__u32 index)
{
	__u64 *word = bpf_map_lookup_elem(&cells, &index);

	return word ? READ_ONCE(*word) : 0;
}

static __always_inline enum slb_reason reason_of(enum slb_action action)
{
	switch (action) {
	case SLB_BALANCE:
		return SLB_WHY_CHOSEN;
	case SLB_PASS_EXCEPT:
		return SLB_WHY_EXCEPT;
	case SLB_PASS_HIDDEN:
	case SLB_REJECT_HIDDEN:
		return SLB_WHY_HIDDEN;
	default:
		return SLB_WHY_DOWN;
	}
}

/* The index of a key's entry; 0 = there is none. */
static __always_inline __u32 frontend_index(const struct slb_frontend_key *key)
{
	__u64 *ref = bpf_map_lookup_elem(&frontends, key), r;

	if (!ref)
		return 0;
	r = READ_ONCE(*ref);
	/* Else deleted while we looked. */
	return SLB_REF_CHECK(r) == SLB_FRONTEND_CHECK(key) ? SLB_REF_INDEX(r) : 0;
}

/*
 * The frontend, else what stands at port 0 for every port that is none
 * (reject_unknown_ports). Not inlined: what follows is verified once for both.
 */
static __noinline __u32 frontend_at(const struct slb_frontend_key *key)
{
	struct slb_frontend_key any = *key;
	__u32 index = frontend_index(key);

	if (index)
		return index;
	any.port_be = 0;
	return frontend_index(&any);
}

/* Is the address a frontend? Then what it leads to is in d. */
static __always_inline bool frontend_of(const struct slb_frontend_key *key,
					struct slb_decision *d)
{
	__u64 w;

	if (!filter_has(frontend_filter, &key->addr))
		return false;
	d->frontend = frontend_at(key);
	if (!d->frontend)
		return false;
	w = frontend_word(d->frontend);
	d->frontend_gen = SLB_FRONTEND_GEN(w);
	d->unknown = SLB_FRONTEND_REST(w);
	d->default_cell = d->cell = SLB_FRONTEND_CELL(w);
	d->word = cell_word(d->cell);
	return SLB_CELL_ACTION(d->word) != SLB_NONE;
}

/*
 * Does policy deny the call, whose address lies in a network that the rules may
 * name, or is a frontend's? An audited one is recorded.
 */
static __always_inline bool policy_denies(__u64 policy, const struct slb_frontend_key *key,
					  struct slb_decision *d, bool named, bool frontend)
{
	__u64 says = slb_policy_decide(policy, key, d->group, named, frontend);

	d->rule = says >> 32;
	d->audited = SLB_POLICY_ACTION(says) == SLB_POLICY_AUDIT;
	d->denied = SLB_POLICY_ACTION(says) == SLB_POLICY_REFUSE;
	if (d->denied)
		d->reason = d->rule ? SLB_WHY_RULE : says & SLB_POLICY_ERROR ? SLB_WHY_ERROR : SLB_WHY_DEFAULT;
	return d->denied;
}

/*
 * What becomes of a call to this address by the current task. Nothing is
 * counted for what is neither a frontend nor denied.
 */
static __always_inline enum slb_verdict decide(const struct slb_frontend_key *key,
					       struct slb_decision *d)
{
	bool frontend = frontend_of(key, d), named;
	__u64 *ref, r, w, *flags, policy = policy_word, caller;

	named = SLB_POLICY_BASE(policy) && policy_may_name(policy, &key->addr);
	if (!frontend) {
		if (!named)
			return SLB_UNTOUCHED;
		d->default_cell = SLB_CELL_NETWORKS;
	}
	caller = slb_word_of_current(&d->member);
	d->group = SLB_CGROUP_GROUP(caller);
	d->split = caller & SLB_CGROUP_SPLIT;
	d->child = caller & SLB_CGROUP_COUNTED ? SLB_PAIR_CHILD(d->member) : 0;
	/* A port that is no frontend meets the rules that name its address, no others. */
	if ((named || (policy & SLB_POLICY_DENY && !d->unknown)) &&
	    policy_denies(policy, key, d, named, frontend && !d->unknown))
		return SLB_REJECT;
	if (!frontend)
		return SLB_UNTOUCHED;

	flags = bpf_map_lookup_elem(&groups, &d->group);
	if (flags && READ_ONCE(*flags) & SLB_GROUP_NO_TRANSLATE) {
		d->reason = SLB_WHY_GROUP;
		count(d->default_cell, d->group, d->child, SLB_COUNT_PASSED);
		return SLB_UNTOUCHED;
	}

	if (SLB_CELL_SELECTIVE(d->word)) {
		struct slb_view_key view = { .cell = d->default_cell, .group = d->group };

		ref = bpf_map_lookup_elem(&views, &view);
		r = ref ? READ_ONCE(*ref) : 0;
		if (ref && SLB_REF_CHECK(r) == SLB_VIEW_CHECK(&view)) {
			w = cell_word(SLB_REF_INDEX(r));
			if (SLB_CELL_ACTION(w) != SLB_NONE) {
				d->cell = SLB_REF_INDEX(r);
				d->word = w;
			}
		}
	}

	d->reason = reason_of(SLB_CELL_ACTION(d->word));
	switch (SLB_CELL_ACTION(d->word)) {
	case SLB_BALANCE:
		if (!d->unknown)
			return SLB_TRANSLATE;
		d->reason = SLB_WHY_PORT;
		return SLB_REJECT;
	case SLB_REJECT_DOWN:
		if (d->unknown)
			d->reason = SLB_WHY_PORT;
		return SLB_REJECT;
	case SLB_REJECT_HIDDEN:
		return SLB_REJECT;
	default:
		count(d->default_cell, d->group, d->child, SLB_COUNT_PASSED);
		return SLB_UNTOUCHED;
	}
}

/*
 * Ends a call with EHOSTUNREACH, with EPERM where policy denies it, or with
 * ECONNREFUSED where its port is the reason, and counts it.
 */
static __always_inline int reject(const struct slb_decision *d)
{
	count(d->default_cell, d->group, d->child, d->denied ? SLB_COUNT_DENIED : SLB_COUNT_REJECTED);
	bpf_set_retval(d->denied ? -EPERM : d->reason == SLB_WHY_PORT ? -ECONNREFUSED : -EHOSTUNREACH);
	return 0;
}

#endif
