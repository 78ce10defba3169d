package main

import (
	"bufio"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// rowsAtOnce is how many rows are aligned together at most, and rowsFor is how
	// long they wait for one another.
	rowsAtOnce = 100
	rowsFor    = 50 * time.Millisecond
	columnGap  = 2
)

// columns writes a table whose rows come one after the other. The first rows say
// how wide the columns are; later ones widen them.
type columns struct {
	w      io.Writer
	widths []int
	rows   [][]string
	since  time.Time // when the first of the rows came
}

func (c *columns) add(row ...string) error {
	if len(c.rows) == 0 || c.widths == nil && len(c.rows) == 1 { // the head waits for others
		c.since = time.Now()
	}
	c.rows = append(c.rows, row)
	if len(c.rows) < rowsAtOnce && time.Since(c.since) < rowsFor {
		return nil
	}
	return c.flush()
}

// flush writes the rows that have come.
func (c *columns) flush() error {
	for _, row := range c.rows {
		for i, cell := range row {
			if i == len(c.widths) {
				c.widths = append(c.widths, 0)
			}
			c.widths[i] = max(c.widths[i], utf8.RuneCountInString(cell))
		}
	}
	w := bufio.NewWriter(c.w)
	for _, row := range c.rows {
		for i, cell := range row {
			if i < len(row)-1 {
				cell += strings.Repeat(" ", c.widths[i]-utf8.RuneCountInString(cell)+columnGap)
			}
			_, _ = w.WriteString(cell) // Flush returns its error
		}
		_ = w.WriteByte('\n')
	}
	c.rows = c.rows[:0]
	return w.Flush()
}
