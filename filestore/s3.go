package filestore

import (
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"gocloud.dev/blob"
)

// bufferLess makes an upload to S3 send parts as soon as the file is larger than one
// part. By default the library reads 16 MB, twice, before it decides to send parts, and
// gocloud.dev/blob has no option for that.
//
// It is for [blob.WriterOptions].BeforeWrite, whose argument is as. It does nothing for
// other object stores.
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
