package bpf

// The objects are committed, so that a build needs Go alone; `make generate`
// rebuilds them with the pinned compiler and passes the place of the
// architecture's <asm/types.h> in BPF2GO_CFLAGS.
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type slb_addr -type slb_frontend_key -type slb_view_key -type slb_backend -type slb_slots -type slb_origin -type slb_udp_choice -type slb_affinity_key -type slb_affinity -type slb_udp_reverse -type slb_expect_key -type slb_pattern_key -type slb_pattern -type slb_cell_info -type slb_group_info -type slb_counters -type slb_backend_counters -type slb_cgroup_event -type slb_failure -type slb_event_kind -type slb_action -type slb_algorithm -type slb_backend_state -type slb_stat -type slb_word_map -type slb_word_store -type slb_policy_line -type slb_policy_head -type slb_policy_action -type slb_seen_key -type slb_seen -type slb_decision_event -type slb_told -type slb_reason -type slb_what -type slb_tell_budget -type slb_latency slicelb slicelb.bpf.c -- -O2 -mcpu=v3 -Wall -Wextra -Wno-unused-parameter -Werror
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type slb_doomed_socket sweep sweep.bpf.c -- -O2 -mcpu=v3 -Wall -Wextra -Wno-unused-parameter -Werror
