package metadata

import "github.com/entrepot/entrepot/cache"

// The buckets of the records. A tag's digest and the time of its last check are
// stored separately: the digest must be durable and rarely changes, the time
// changes often and may be lost.
const (
	bucketTag      cache.Bucket = "tag"
	bucketChecked  cache.Bucket = "checked"
	bucketManifest cache.Bucket = "manifest"
	// bucketWide holds the media types of manifests that reference much.
	bucketWide   cache.Bucket = "wide"
	bucketMember cache.Bucket = "member"
	// bucketHeld holds the members that an upstream has confirmed and that must
	// not have to be asked for again. bucketPrivate holds the content that was
	// fetched with credentials.
	bucketHeld    cache.Bucket = "held"
	bucketPrivate cache.Bucket = "private"
	bucketTagList cache.Bucket = "taglist"
	// bucketAbsent and bucketUnattached hold tags that do not exist; see
	// [Ledger.PutAbsent].
	bucketAbsent     cache.Bucket = "absent"
	bucketUnattached cache.Bucket = "unattached"
	// bucketReferrers holds complete answers. bucketSeen and bucketAttached
	// hold what cached manifests say about a subject. On disk, bucketSeen has
	// its older name.
	bucketReferrers cache.Bucket = "referrers"
	bucketSeen      cache.Bucket = "passed"
	bucketAttached  cache.Bucket = "attached"
	// bucketAttestation holds the manifests that an index marks as BuildKit
	// attestations.
	bucketAttestation cache.Bucket = "attestation"
	bucketUsed        cache.Bucket = "used"
	bucketPin         cache.Bucket = "pin"
	// bucketAPI holds the endpoints that have been seen to support the
	// Referrers API.
	bucketAPI cache.Bucket = "api"
	// bucketStored holds how much is stored.
	bucketStored cache.Bucket = "stored"
)

// repositoryBuckets are the buckets whose keys begin with a repository, except
// for pins.
var repositoryBuckets = []cache.Bucket{
	bucketTag, bucketChecked, bucketManifest, bucketWide, bucketMember, bucketHeld, bucketTagList,
	bucketReferrers, bucketSeen, bucketAttached, bucketAttestation, bucketUsed, bucketAbsent, bucketUnattached,
}

var absentBuckets = []cache.Bucket{bucketAbsent, bucketUnattached}

// Durable are the buckets whose records cannot be fetched again if the upstream
// is gone. The record store writes them twice.
func Durable() []cache.Bucket {
	return []cache.Bucket{bucketTag, bucketManifest, bucketWide, bucketReferrers, bucketSeen, bucketPin, bucketAPI, bucketAttestation, bucketHeld, bucketPrivate}
}
