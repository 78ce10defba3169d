package admin

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/metric"
)

// Limits are what the process may use, as they were seen at the start. Zero
// means that there is no limit, or that it is not known.
type Limits struct {
	Files, PIDs  int64
	Memory, Disk int64 // in bytes
	Inodes       int64
}

// Limits exports the limits, so that an alert can compare them with what is in
// use.
func (m *Metrics) Limits(of Limits) error {
	for _, l := range []struct {
		name, unit, about string
		value             int64
	}{
		{"files", "", "Files that this process may have open; 0 where that is not bounded.", of.Files},
		{"pids", "", "Kernel threads that this process and those in its group may have; 0 where that is not bounded.", of.PIDs},
		{"memory", "By", "Memory that this process and those in its group may take; 0 where that is not known.", of.Memory},
		{"disk", "By", "Size of the file system that the cache is on; 0 where that is not known.", of.Disk},
		{"inodes", "", "Files that the file system of the cache can hold; 0 where that is not bounded.", of.Inodes},
	} {
		gauge, err := m.provider.Meter("entrepot").Int64Gauge("entrepot.limit."+l.name, metric.WithUnit(l.unit), metric.WithDescription(l.about))
		if err != nil {
			return fmt.Errorf("metric entrepot.limit.%s: %w", l.name, err)
		}
		gauge.Record(context.Background(), l.value)
	}
	return nil
}
