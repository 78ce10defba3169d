package retention_test

import "github.com/entrepot/entrepot/cache"

// The names of the buckets in existing cache directories.
const (
	bucketTag         cache.Bucket = "tag"
	bucketChecked     cache.Bucket = "checked"
	bucketManifest    cache.Bucket = "manifest"
	bucketMember      cache.Bucket = "member"
	bucketTagList     cache.Bucket = "taglist"
	bucketReferrers   cache.Bucket = "referrers"
	bucketPassed      cache.Bucket = "passed"
	bucketAttached    cache.Bucket = "attached"
	bucketAttestation cache.Bucket = "attestation"
	bucketUsed        cache.Bucket = "used"
	bucketPin         cache.Bucket = "pin"
)
