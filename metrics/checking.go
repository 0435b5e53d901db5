package metrics

import "github.com/slicelb/slicelb/api"

// checking is what health checks say.
var checking = []family{
	{Name: "slicelb_backend_check_up", Type: gauge, Labels: []string{"vip", "backend"},
		Help:    "1 while a backend's health checks succeed, by fall and rise; only for those that are checked.",
		collect: checked(func(c *api.Check) float64 { return truth(c.State == "up") })},
	{Name: "slicelb_backend_checks_total", Type: counter, Labels: []string{"vip", "backend"},
		Help:    "Health checks of a backend that have ended.",
		collect: checked(func(c *api.Check) float64 { return float64(c.Count) })},
	{Name: "slicelb_backend_check_duration_seconds", Type: gauge, Labels: []string{"vip", "backend"},
		Help:    "How long the newest health check of a backend took.",
		collect: checked(func(c *api.Check) float64 { return c.Took.Seconds() })},
	{Name: "slicelb_health_checks_total", Type: counter, Labels: []string{"result"},
		Help: "Health checks that have ended: passed, failed, or void where this host could not make them.",
		collect: func(r *Reading, emit emit) {
			h := &r.Health
			emit(float64(h.Checks-min(h.Checks, h.Failed+h.Void)), "passed")
			emit(float64(h.Failed), "failed")
			emit(float64(h.Void), "void")
		}},
	{Name: "slicelb_health_suspected_total", Type: counter,
		Help:    "Health checks that a connect which the kernel saw fail brought forward.",
		collect: one(func(r *Reading) float64 { return float64(r.Health.Suspected) })},
	{Name: "slicelb_health_targets", Type: gauge,
		Help:    "Backends that are checked.",
		collect: one(func(r *Reading) float64 { return float64(r.Health.Targets) })},
	{Name: "slicelb_health_late_seconds", Type: gauge,
		Help:    "The longest delay of a health check's start in the last 10 seconds.",
		collect: one(func(r *Reading) float64 { return r.Health.Late.Seconds() })},
	{Name: "slicelb_health_stalled_seconds_total", Type: counter,
		Help:    "How long the daemon did not run although health checks were due.",
		collect: one(func(r *Reading) float64 { return r.Health.Stalled.Seconds() })},
}

// checked tells of the backends that have checks.
func checked(f func(*api.Check) float64) func(*Reading, emit) {
	return backends(func(b *api.Backend, emit emit) {
		if b.Check != nil {
			emit(f(b.Check), b.VIP, b.Address)
		}
	})
}
