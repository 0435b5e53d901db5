package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// connectProgram is the program that -parts takes parts from.
const connectProgram = "slb_connect4"

// A part of a call is priced by two variants that differ by it: the one that is
// with has it, the one that is without does all else.
type part struct {
	name          string
	with, without string
}

// partSpecs are the variants of -parts. A hit without a part is the real program
// with that part's calls answered by nothing.
var partSpecs = []spec{
	{"bare", directAddr, nil},
	{"empty program", directAddr, (*variant).attachEmpty},
	{"no VIP", directAddr, (*variant).attachOne},
	{"VIP hit", vipAddr, (*variant).attachOne},
	{"no group", vipAddr, without(skipCalled("slb_word_of_current"))},
	{"no storage", vipAddr, without(skipHelper(asm.FnSkStorageGet))},
	{"no counters", vipAddr, without(skipCalled("count"))},
	{"no atomics", vipAddr, without(skipAtomics)},
}

var parts = []part{
	{"the hooks themselves, with an empty program", "empty program", "bare"},
	{"filter of addresses (all of a miss)", "no VIP", "empty program"},
	{"everything after it, for a hit", "VIP hit", "no VIP"},
	{"  of that: group of the caller", "VIP hit", "no group"},
	{"  of that: what the socket remembers, and its live count", "VIP hit", "no storage"},
	{"  of that: counters of VIP and group", "VIP hit", "no counters"},
	{"  of that: the backend's counters, atomically", "VIP hit", "no atomics"},
}

// without attaches one VIP, its connect program edited.
func without(edit edit) func(*variant) error {
	return func(v *variant) error {
		taken := false
		v.edit = func(spec *ebpf.CollectionSpec) {
			p := spec.Programs[connectProgram]
			p.Instructions, taken = edit(p.Instructions)
		}
		if err := v.attachOne(); err != nil {
			return err
		}
		if !taken {
			return errors.New(connectProgram + " has no such part")
		}
		return nil
	}
}

// An edit takes a part out, if it is there.
type edit func(asm.Instructions) (out asm.Instructions, taken bool)

// skipHelper has a helper answer 0, always.
func skipHelper(f asm.BuiltinFunc) edit {
	return func(insns asm.Instructions) (_ asm.Instructions, taken bool) {
		for i, ins := range insns {
			if ins.IsBuiltinCall() && asm.BuiltinFunc(ins.Constant) == f {
				insns[i], taken = instead(ins, asm.Mov.Imm(asm.R0, 0)), true
			}
		}
		return insns, taken
	}
}

// skipAtomics leaves additions out.
func skipAtomics(insns asm.Instructions) (_ asm.Instructions, taken bool) {
	for i, ins := range insns {
		if ins.OpCode == asm.AddAtomic.OpCode(asm.DWord) {
			insns[i], taken = instead(ins, asm.Mov.Reg(ins.Src, ins.Src)), true
		}
	}
	return insns, taken
}

// skipCalled has a function return 0 at once. What it did stays behind a jump that
// is never taken: the verifier refuses what no jump leads to.
func skipCalled(name string) edit {
	return func(insns asm.Instructions) (asm.Instructions, bool) {
		for i, ins := range insns {
			if ins.Symbol() != name {
				continue
			}
			never := asm.JNE.Imm(asm.R0, 0, "")
			never.Offset = 1
			head := asm.Instructions{instead(ins, asm.Mov.Imm(asm.R0, 0)), never, asm.Return()}
			insns[i].Metadata = asm.Metadata{}
			return append(append(insns[:i:i], head...), insns[i:]...), true
		}
		return insns, false
	}
}

// instead is an instruction in the place of another, which may begin a function.
func instead(of, ins asm.Instruction) asm.Instruction {
	ins.Metadata = of.Metadata
	return ins
}

// runParts prints what each part of a connect costs. Parts overlap in a
// processor: they sum up to about the whole, not to the whole.
func runParts(ctx context.Context, o options, out io.Writer) error {
	measured, err := measure(ctx, o, partSpecs, []string{kindConnect})
	if err != nil {
		return err
	}
	least := measured[kindConnect]
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "connect(), bare\t%.0f ns\n", least["bare"])
	for _, p := range parts {
		fmt.Fprintf(w, "%s\t%+.0f\n", p.name, least[p.with]-least[p.without])
	}
	return w.Flush()
}
