package kubernetes

import (
	"context"
	"net/http"
	"path/filepath"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// api is the part of the apiserver that the backend uses, in one namespace. Its scheme has three
// groups. The library's own typed clients know all groups, which adds 17 MB more to the binary
// and some 10 ms to the start of each process.
type api struct {
	pods        *gentype.ClientWithList[*corev1.Pod, *corev1.PodList]
	leases      *gentype.ClientWithList[*coordinationv1.Lease, *coordinationv1.LeaseList]
	deployments *gentype.Client[*appsv1.Deployment]
	raw         rest.Interface // for what is in no namespace
	http        *http.Client
	host        string
	namespace   string
}

// newAPI makes the clients. It contacts nothing.
func newAPI(opts Options) (*api, error) {
	found, err := loadConfig(opts)
	if err != nil {
		return nil, err
	}
	config, namespace := found.config, found.namespace
	config.QPS = -1 // the apiserver has fair queues of its own
	// To read a pod from JSON takes more than ten times as long, and the apiserver writes it faster, too.
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	config.UserAgent = opts.UserAgent
	config.WarningHandlerWithContext = rest.NoWarnings{}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, coordinationv1.AddToScheme, appsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	parameters := runtime.NewParameterCodec(scheme)
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	group := func(path string, version schema.GroupVersion) (rest.Interface, error) {
		c := rest.CopyConfig(config)
		c.APIPath, c.GroupVersion, c.NegotiatedSerializer = path, &version, codecs
		return rest.RESTClientForConfigAndClient(c, client)
	}
	core, err := group("/api", corev1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	coordination, err := group("/apis", coordinationv1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	apps, err := group("/apis", appsv1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	return &api{
		pods: gentype.NewClientWithList("pods", core, parameters, namespace,
			func() *corev1.Pod { return &corev1.Pod{} }, func() *corev1.PodList { return &corev1.PodList{} }),
		leases: gentype.NewClientWithList("leases", coordination, parameters, namespace,
			func() *coordinationv1.Lease { return &coordinationv1.Lease{} }, func() *coordinationv1.LeaseList { return &coordinationv1.LeaseList{} }),
		deployments: gentype.NewClient("deployments", apps, parameters, namespace, func() *appsv1.Deployment { return &appsv1.Deployment{} }),
		raw:         core, http: client, host: config.Host, namespace: namespace,
	}, nil
}

// location is an apiserver and a namespace.
type location struct {
	config    *rest.Config
	namespace string
}

// loadConfig finds the apiserver: that of KUBECONFIG, or of ~/.kube/config, or else of the
// cluster that this process is a pod of. The namespace, unless it is given, is that of the
// context or of the pod.
func loadConfig(opts Options) (location, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	if opts.Kubeconfig != "" {
		rules.Precedence = filepath.SplitList(opts.Kubeconfig)
	}
	overrides := &clientcmd.ConfigOverrides{CurrentContext: opts.Context}
	overrides.Context.Namespace = opts.Namespace
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	config, err := loader.ClientConfig()
	if err != nil {
		return location{}, configFault(opts, err)
	}
	namespace, _, err := loader.Namespace()
	if err != nil {
		return location{}, configFault(opts, err)
	}
	return location{config, namespace}, nil
}

// lister lists and watches objects of one kind.
type lister[L runtime.Object] interface {
	List(ctx context.Context, opts metav1.ListOptions) (L, error)
	Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)
}

// mirror keeps a store as the apiserver has the objects with a label, until ctx ends. The library
// lists again where a watch cannot go on (410), and pauses after failures. attempted receives the
// result of each list and watch that begins: the library itself would only log it.
func mirror[L runtime.Object](ctx context.Context, from lister[L], example runtime.Object, selector string, store cache.ReflectorStore, attempted func(error)) {
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			opts.LabelSelector = selector
			list, err := from.List(ctx, opts)
			attempted(err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			opts.LabelSelector = selector
			events, err := from.Watch(ctx, opts)
			attempted(err)
			return events, err
		},
	}
	silent := logr.Discard()
	reflector := cache.NewReflectorWithOptions(source, example, store, cache.ReflectorOptions{Name: "vivarium", Logger: &silent})
	reflector.RunWithContext(logr.NewContext(ctx, silent))
}

// examplePod and exampleLease are of the kinds that the mirrors expect.
func examplePod() runtime.Object   { return &corev1.Pod{} }
func exampleLease() runtime.Object { return &coordinationv1.Lease{} }
