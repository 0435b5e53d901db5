package bpf

// Names are written plainly, by Apply: who reads them holds the lock of writers,
// for no longer than that takes.

const nameLen = len(slicelbSlbGroupInfo{}.Name)

// GroupName is the name of a group's index; "" is the host, or nobody's.
func (d *Datapath) GroupName(index uint32) string {
	if d.acquire() != nil {
		return ""
	}
	defer d.release()
	if index >= uint32(len(d.groupInfos)) {
		return ""
	}
	d.write.Lock()
	name := d.groupInfos[index].Name
	d.write.Unlock()
	return text(name[:], len(name))
}

// VIPName is the name of the VIP that a cell belongs to; "" is nobody's.
func (d *Datapath) VIPName(cell uint32) string {
	if d.acquire() != nil {
		return ""
	}
	defer d.release()
	if cell >= uint32(len(d.cellInfos)) {
		return ""
	}
	d.write.Lock()
	name := d.cellInfos[cell].Vip
	d.write.Unlock()
	return text(name[:], len(name))
}

// GroupIndex finds a group by its name.
func (d *Datapath) GroupIndex(name string) (uint32, bool) {
	if d.acquire() != nil {
		return 0, false
	}
	defer d.release()
	var want [nameLen]int8
	if setText(want[:], name) != nil {
		return 0, false
	}
	d.write.Lock()
	defer d.write.Unlock()
	for i := 1; i < len(d.groupInfos); i++ {
		if d.groupInfos[i].Name == want {
			return uint32(i), true
		}
	}
	return 0, false
}

// VIPCells finds the default cells of a VIP: one for each of its families.
func (d *Datapath) VIPCells(name string) []uint32 {
	if d.acquire() != nil {
		return nil
	}
	defer d.release()
	var want [nameLen]int8
	if setText(want[:], name) != nil {
		return nil
	}
	d.write.Lock()
	defer d.write.Unlock()
	var cells []uint32
	for _, i := range d.defaultCells() {
		if d.cellInfos[i].Vip == want {
			cells = append(cells, i)
		}
	}
	return cells
}

// defaultCells are those of all VIPs. The caller holds write.
func (d *Datapath) defaultCells() []uint32 {
	var cells []uint32
	for i := range d.cellInfos {
		if c := &d.cellInfos[i]; c.Family != 0 && c.Group[0] == 0 {
			cells = append(cells, uint32(i))
		}
	}
	return cells
}

// knownBackends are the indexes that name one, of those that are gone too until
// they name another. The caller holds write.
func (d *Datapath) knownBackends() []uint32 {
	var known []uint32
	for i := range d.backends {
		if d.backends[i].Generation != 0 {
			known = append(known, uint32(i))
		}
	}
	return known
}
