package scale

import "testing"

func TestCount(t *testing.T) {
	tests := []struct {
		value string
		whole int
		want  int
	}{
		{"", 10_000, 200},
		{"1", 10_000, 10_000},
		{"0.5", 3, 1},
		{"0.0001", 100, 1},
		{"nonsense", 100, 2},
		{"-1", 100, 2},
		{"NaN", 100, 2},
		{"2", 100, 200},
	}
	for _, tt := range tests {
		t.Setenv(Var, tt.value)
		if got := Count(tt.whole); got != tt.want {
			t.Errorf("%q of %d is %d, want %d", tt.value, tt.whole, got, tt.want)
		}
	}
}
