package health

import "time"

// queue holds probes by the moment at which something is to be done about them:
// a heap that knows each probe's place.
type queue []*probe

// put adds p, or moves it, to the moment when.
func (q *queue) put(p *probe, when time.Duration) {
	if p.place < 0 {
		p.place = len(*q)
		*q = append(*q, p)
	}
	p.when = when
	q.sift(p.place)
}

// take removes p, which need not be there.
func (q *queue) take(p *probe) {
	i := p.place
	if i < 0 {
		return
	}
	last := len(*q) - 1
	q.swap(i, last)
	(*q)[last] = nil
	*q = (*q)[:last]
	p.place = -1
	if i < last {
		q.sift(i)
	}
}

func (q queue) swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// sift moves the probe at i to where it belongs.
func (q queue) sift(i int) {
	for i > 0 {
		up := (i - 1) / 2
		if q[up].when <= q[i].when {
			break
		}
		q.swap(i, up)
		i = up
	}
	for {
		least := i
		for _, down := range [...]int{2*i + 1, 2*i + 2} {
			if down < len(q) && q[down].when < q[least].when {
				least = down
			}
		}
		if least == i {
			return
		}
		q.swap(i, least)
		i = least
	}
}
