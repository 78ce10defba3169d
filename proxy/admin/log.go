package admin

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/metric"
)

// LostLines exports what lost returns: how many lines of the log were dropped.
func (m *Metrics) LostLines(lost func() int64) error {
	_, err := m.provider.Meter("entrepot").Int64ObservableCounter("entrepot.log.lost",
		metric.WithDescription("Lines of the log that were dropped, because nothing took them."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(lost())
			return nil
		}))
	if err != nil {
		return fmt.Errorf("metric entrepot.log.lost: %w", err)
	}
	return nil
}
