package warm

// What tests of package warm_test need of its inside.
const (
	CheckPins   = checkPins
	MaxFailures = maxFailures
	Settles     = settles
	Breathes    = breathes
	QuotaRest   = quotaRest
	LongestRest = longestRest
)
