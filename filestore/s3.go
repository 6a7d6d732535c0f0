package filestore

import (
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"gocloud.dev/blob"
)

// bufferLess has an upload to S3 come in parts as soon as it is larger than one.
// By itself the library reads 16 MB before it decides that a file comes in
// parts, twice over, and no option of gocloud.dev/blob says otherwise.
//
// It is for [blob.WriterOptions].BeforeWrite, whose as it takes; other object
// stores' it leaves alone.
func bufferLess(bucket *blob.Bucket, as func(any) bool, part int64, atOnce int) {
	var manager *transfermanager.Client // the upload's own
	var client *s3.Client
	if !as(&manager) || !bucket.As(&client) {
		return
	}
	*manager = *transfermanager.New(client, func(o *transfermanager.Options) {
		o.RequestChecksumCalculation = client.Options().RequestChecksumCalculation
		o.PartSizeBytes, o.MultipartUploadThreshold, o.Concurrency = part, part, atOnce
	})
}
