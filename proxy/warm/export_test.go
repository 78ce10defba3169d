package warm

// What tests of package warm_test need of its inside.
const (
	PinInterval  = pinInterval
	MaxFailures  = maxFailures
	SettleDelay  = settleDelay
	ScanFactor   = scanFactor
	QuotaBackoff = quotaBackoff
	MaxBackoff   = maxBackoff
)
