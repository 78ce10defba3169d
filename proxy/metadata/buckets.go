package metadata

import "github.com/entrepot/entrepot/cache"

// The buckets of the records. A tag's digest and the time of its last check are
// kept apart: the first must last and rarely changes, the second is the
// opposite of both.
const (
	bucketTag      cache.Bucket = "tag"
	bucketChecked  cache.Bucket = "checked"
	bucketManifest cache.Bucket = "manifest"
	bucketMember   cache.Bucket = "member"
	bucketTagList  cache.Bucket = "taglist"
	// bucketReferrers has complete answers. bucketSeen and bucketAttached have
	// what manifests that were kept say of a subject.
	bucketReferrers cache.Bucket = "referrers"
	bucketSeen      cache.Bucket = "passed"
	bucketAttached  cache.Bucket = "attached"
	// bucketAttestation has the manifests that an index marks as BuildKit's
	// attestations.
	bucketAttestation cache.Bucket = "attestation"
	bucketUsed        cache.Bucket = "used"
	bucketPin         cache.Bucket = "pin"
	// bucketAPI has the endpoints that were seen to have the Referrers API.
	bucketAPI cache.Bucket = "api"
)

// ofRepository are the buckets whose keys begin with a repository, but for pins.
var repositoryBuckets = []cache.Bucket{
	bucketTag, bucketChecked, bucketManifest, bucketMember, bucketTagList,
	bucketReferrers, bucketSeen, bucketAttached, bucketAttestation, bucketUsed,
}

// Durable are the buckets that cannot be fetched again from an upstream that is
// gone. A store of records keeps them twice.
func Durable() []cache.Bucket {
	return []cache.Bucket{bucketTag, bucketManifest, bucketReferrers, bucketSeen, bucketPin, bucketAPI, bucketAttestation}
}
