package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
)

// depths are how many cgroups lie between the caller's and the nearest that has a
// group, the caller's own included: 0 is a caller whose own cgroup has one.
var depths = []int{0, 1, 2, 4, 8, 16, 24, 32}

// runDepths times a connect that hits a VIP by how far away the caller's group is.
// Every cgroup in between costs a look-up.
func runDepths(ctx context.Context, o options, out io.Writer) (err error) {
	base, done, err := arena(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	var variants []*variant
	defer func() {
		for _, v := range variants {
			err = errors.Join(err, v.close())
		}
	}()
	for _, depth := range depths {
		v, err := newVariant(base, fmt.Sprintf("depth-%d", depth), vipAddr)
		if err != nil {
			return err
		}
		variants = append(variants, v)
		if err := v.attachSlicelb(1, 1, 1); err != nil {
			return err
		}
		at := v.scope()
		for range depth {
			at = filepath.Join(at, "d")
			dir := at
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
			v.undo = append(v.undo, func() error { return os.Remove(dir) })
		}
		if err := v.startIn(at); err != nil {
			return err
		}
	}
	least := map[*variant]float64{}
	for range o.rounds {
		for _, v := range variants {
			if err := ctx.Err(); err != nil {
				return err
			}
			ns, err := v.time(kindConnect, o.ops)
			if err != nil {
				return err
			}
			if was, ok := least[v]; !ok || ns < was {
				least[v] = ns
			}
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "look-ups that miss\tconnect ns\tmore than with none\tfor each\t")
	for i, v := range variants {
		more, each := least[v]-least[variants[0]], ""
		if depths[i] > 0 {
			each = fmt.Sprintf("%.1f", more/float64(depths[i]))
		}
		fmt.Fprintf(w, "%d\t%.0f\t%.0f\t%s\t\n", depths[i], least[v], more, each)
	}
	return w.Flush()
}
