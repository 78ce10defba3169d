package admin

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/metric"
)

// DiskDown exports whether the disk is down.
func (m *Metrics) DiskDown(down func() bool) error {
	_, err := m.provider.Meter("entrepot").Int64ObservableGauge("entrepot.disk.down",
		metric.WithDescription("1 while the disk of the cache does not answer: what is in memory is served, and the rest passes through."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			var is int64
			if down() {
				is = 1
			}
			o.Observe(is)
			return nil
		}))
	if err != nil {
		return fmt.Errorf("metric entrepot.disk.down: %w", err)
	}
	return nil
}
