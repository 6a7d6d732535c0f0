// Package link connects a server to PID 1 of a pod, so that a pod can be a sandbox as a
// container is one: one stream in both directions, over TCP and TLS 1.3.
//
// Each side knows the other before the first byte:
//
//   - The server knows the pod by its key. The pod's first container makes it in memory
//     ([WriteIdentity]) and publishes its pin with the [Facts] of the node. No pod holds a
//     secret that is of use for another pod.
//   - The pod knows the server by its certificate ([Credentials]), which a certificate
//     authority of Vivarium's own has issued ([CA]). Pods have the authority's certificate,
//     which is public.
//
// The package knows nothing of Kubernetes' API.
package link
