package admin

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/metric"
)

// Refused counts a connection or a blob for which there was no place.
func (m *Metrics) Refused() { m.clients.refused.Add(context.Background(), 1) }

// Cut counts a client that was disconnected in the middle of an answer.
func (m *Metrics) Cut(reason string) {
	m.clients.cut.Add(context.Background(), 1, m.attributes(labels{reason: reason}))
}

// Places exports what taken returns: the places that clients have taken.
func (m *Metrics) Places(taken func() (connections, blobs int)) error {
	meter := m.provider.Meter("entrepot")
	connections, err := meter.Int64ObservableGauge("entrepot.clients.connections", metric.WithDescription("Connections of clients."))
	if err != nil {
		return fmt.Errorf("metric entrepot.clients.connections: %w", err)
	}
	sending, err := meter.Int64ObservableGauge("entrepot.clients.sending", metric.WithDescription("Blobs that are being sent."))
	if err != nil {
		return fmt.Errorf("metric entrepot.clients.sending: %w", err)
	}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		c, b := taken()
		o.ObserveInt64(connections, int64(c))
		o.ObserveInt64(sending, int64(b))
		return nil
	}, connections, sending)
	if err != nil {
		return fmt.Errorf("metrics of clients: %w", err)
	}
	return nil
}
