package bpf

import "testing"

// A walk says how much room there is, unless the kernel has counted meanwhile: the
// walk may have passed by what it counted.
func TestRoomIsSetWhereNothingChanged(t *testing.T) {
	for _, test := range []struct{ before, now, want int64 }{
		{9, 9, 11}, // wrong by a kill
		{11, 10, 10},
		{-3, -2, -2},
	} {
		room := test.now
		d := &Datapath{cgroupRoom: &room, limits: Limits{Cgroups: 16}} // two are root's
		if d.countCgroups(test.before, 3); room != test.want {
			t.Errorf("%d before, %d now: %d, want %d", test.before, test.now, room, test.want)
		}
	}
}
