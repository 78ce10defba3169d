package flight

import (
	"time"
)

// clock is when a download looks at itself: to make its draft durable, and to
// see whether anybody still waits for it.
type clock struct {
	d     *download
	timer *time.Timer

	idleSince time.Time // nobody has read since, and nobody wants all; zero if somebody does
	saved     time.Time
	savedAt   int64 // bytes stored by then
	judged    time.Time
	judgedAt  int64
}

func newClock(d *download) *clock {
	now := time.Now()
	return &clock{d: d, timer: time.NewTimer(time.Hour), saved: now, judged: now}
}

func (c *clock) stop() { c.timer.Stop() }

// tick fires when something is due.
func (c *clock) tick(retryAt time.Time) <-chan time.Time {
	now := time.Now()
	next := earliest(c.saved.Add(saveEvery), c.judged.Add(idleEvery))
	if c.isIdle() {
		if c.idleSince.IsZero() {
			c.idleSince = now
		}
		next = earliest(next, c.idleSince.Add(linger))
	} else {
		c.idleSince = time.Time{}
	}
	if c.d.hasLanes() {
		next = earliest(next, now.Add(judgeEvery))
	}
	if retryAt.After(now) {
		next = earliest(next, retryAt)
	}
	c.timer.Reset(time.Until(next))
	return c.timer.C
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// isIdle says whether nobody reads and nobody wants all of it.
func (c *clock) isIdle() bool {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	return !c.d.plan.fill && !c.d.spool.isHeld()
}

// due does what is due. It returns an error if the download is to end.
func (c *clock) due() error {
	now := time.Now()
	c.d.judge(now)
	stored, fill, state, answered := c.d.look()
	if answered.After(c.judged) {
		c.judged = answered // before that, there was nothing to judge
	}
	if !c.idleSince.IsZero() && now.Sub(c.idleSince) >= linger {
		c.idleSince = time.Time{}
		c.d.group.park(c.d.Flight)
	}
	if now.Sub(c.saved) >= saveEvery {
		if stored > c.savedAt && fill {
			c.d.save()
			c.savedAt = stored
		}
		c.saved = now
	}
	if now.Sub(c.judged) >= idleEvery {
		if fill && state == receiving && stored < c.judgedAt+idleBytes && !c.d.spool.isHeld() {
			return errAbandoned
		}
		c.judged, c.judgedAt = now, stored
	}
	return nil
}

func (d *download) look() (stored int64, fill bool, state state, answered time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.progress.stored, d.plan.fill, d.state, d.progress.answered
}

// isParked says whether nobody reads. A download that only its readers can have
// ends then.
func (d *download) isParked() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.spool.patient && !d.spool.isHeld() {
		d.state = parked
	}
	return d.state == parked
}

// isForsaken says whether nobody waits for it, and the source has not been asked
// yet because others are before it. Nothing is lost if it ends: who wants it
// later waits behind those who want something now.
func (d *download) isForsaken() bool {
	d.mu.Lock()
	queued := d.state == waiting && d.plan.isQueued()
	d.mu.Unlock()
	return queued && d.group.forsake(d.Flight)
}
