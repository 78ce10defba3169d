package warm

// Exported for the tests in package warm_test.
const (
	PinInterval  = pinInterval
	MaxFailures  = maxFailures
	SettleDelay  = settleDelay
	ScanFactor   = scanFactor
	QuotaBackoff = quotaBackoff
	MaxBackoff   = maxBackoff
)
