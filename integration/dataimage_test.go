package integration

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

	mcpclient "github.com/mark3labs/mcp-go/client"
	mcpsdk "github.com/mark3labs/mcp-go/mcp"
)

// dataModules are what the data image promises to programs, by the name that is imported, with the distribution
// that it belongs to.
func dataModules() map[string]string {
	return map[string]string{
		"numpy": "numpy", "pandas": "pandas", "scipy.stats": "scipy", "matplotlib.pyplot": "matplotlib",
		"seaborn": "seaborn", "sklearn.ensemble": "scikit-learn", "statsmodels.api": "statsmodels", "sympy": "sympy",
		"networkx": "networkx", "openpyxl": "openpyxl", "xlsxwriter": "XlsxWriter", "PIL.Image": "pillow",
		"lxml.etree": "lxml", "bs4": "beautifulsoup4", "html5lib": "html5lib", "requests": "requests",
		"docx": "python-docx", "pypdf": "pypdf", "fpdf": "fpdf2", "yaml": "PyYAML",
		"plotly.express": "plotly", "jinja2": "Jinja2", "xlrd": "xlrd", "odf.opendocument": "odfpy", "tables": "tables",
		"h5py": "h5py", "reportlab.pdfgen.canvas": "reportlab", "cv2": "opencv", "skimage.filters": "scikit-image",
		"xgboost": "xgboost", "pydantic": "pydantic", "matplotlib_venn": "matplotlib-venn",
		"pdfminer.high_level": "pdfminer.six", "tqdm": "tqdm", "tabulate": "tabulate", "psutil": "psutil",
		"numexpr": "numexpr", "bottleneck": "Bottleneck", "numba": "numba", "xarray": "xarray", "geopandas": "geopandas",
		"shapely": "shapely", "pyproj": "pyproj", "altair": "altair", "nltk": "nltk", "markdown": "Markdown",
		"cryptography.fernet": "cryptography", "httpx": "httpx", "rich.console": "rich", "chardet": "chardet",
		"dateutil.parser": "python-dateutil", "IPython.display": "ipython", "pip": "pip", "imageio.v3": "imageio",
		"imageio_ffmpeg": "imageio-ffmpeg", "graphviz": "graphviz",
	}
}

// dataServer returns a server with the data image, and the limits that it has by default but for time. The first test
// that asks starts it; it is for tests that do not end it.
func dataServer(t *testing.T) *server {
	t.Helper()
	shared.startData.Do(func() {
		limits := []string{"POOL_SIZE=1", "MEMORY_LIMIT_MB=1024", "CPU_TIME_LIMIT_SEC=60", "WORKSPACE_LIMIT_MB=512", "TMP_LIMIT_MB=256"}
		var err error
		if shared.data, err = start(with(dataImage, limits...)); err != nil {
			t.Error(err)
		}
	})
	if shared.data == nil {
		t.Fatal("the server with the data image has not started")
	}
	return shared.data
}

func TestDataImageModules(t *testing.T) {
	modules := dataModules()
	names := make([]string, 0, len(modules))
	for name := range modules {
		names = append(names, name)
	}
	slices.Sort(names)
	s := dataServer(t)
	for some := range slices.Chunk(names, 15) {
		code := "import importlib\nfor name in '" + strings.Join(some, " ") + "'.split():\n" +
			"    try: importlib.import_module(name)\n    except Exception as error: print(name, repr(error))\n"
		program{}.check(t, mustRun(t, s, request{"code": code, "timeout_ms": 60000}))
	}
}

// dataPrograms use what the data image has, under the limits that a sandbox has by default.
func dataPrograms() []program {
	const table = "import pandas as pd, numpy as np\ndf = pd.DataFrame({'a': [1, 2], 'b': [1.5, 2.5]})\n"
	return []program{
		{name: "a styled table", code: table + "print('background' in df.style.highlight_max().to_html(), 'tabular' in df.to_latex(), '|' in df.to_markdown())", stdout: "True True True\n"},
		{name: "xlsx", code: table + "df.style.background_gradient().to_excel('a.xlsx', index=False)\nprint(pd.read_excel('a.xlsx').equals(df))", stdout: "True\n", files: "a.xlsx"},
		{name: "ods", code: table + "df.to_excel('a.ods', index=False)\nprint(pd.read_excel('a.ods').equals(df))", stdout: "True\n", files: "a.ods"},
		{name: "hdf", code: table + "df.to_hdf('a.h5', key='t')\ndf.to_hdf('b.h5', key='t', format='table', complib='blosc')\nprint(pd.read_hdf('a.h5').equals(df), len(pd.read_hdf('b.h5', 't', where='index>0')))", stdout: "True 1\n", files: "a.h5 b.h5"},
		{name: "h5py", code: "import h5py\nwith h5py.File('a.h5', 'w') as f: f['x'] = [1, 2]\nprint(h5py.File('a.h5')['x'][:])", stdout: "[1 2]\n", files: "a.h5"},
		{name: "netCDF", code: "import xarray as xr\nxr.Dataset({'v': ('x', [1, 2])}).to_netcdf('a.nc')\nprint(int(xr.open_dataset('a.nc').v.sum()))", stdout: "3\n", files: "a.nc"},
		{name: "plotly", code: table + "import plotly.express as px\nfig = px.line(df, x='a', y='b')\nprint('Plotly' in fig.to_html(), px.data.iris().shape)\nfig.show()", stdout: "True (150, 6)\n", files: "output-1.html"},
		{name: "plotly's value", code: "import plotly.graph_objects as go\ngo.Figure(go.Bar(y=[1, 2]))", stdout: "~Figure", files: "output-1.html"},
		{name: "altair", code: table + "import altair as alt\nc = alt.Chart(df).mark_bar().encode(x='a:Q')\nprint(c.to_dict()['encoding']['x']['type'])\nc.save('a.html')", stdout: "quantitative\n", files: "a.html"},
		{name: "opencv", code: "import cv2, numpy as np\ni = cv2.resize(np.zeros((9, 9, 3), np.uint8), (4, 5))\ncv2.putText(i, 'x', (0, 4), cv2.FONT_HERSHEY_SIMPLEX, 0.3, (255, 0, 0))\ncv2.imwrite('a.png', i)\nprint(cv2.Canny(cv2.imread('a.png'), 1, 2).shape)", stdout: "(5, 4)\n", files: "a.png"},
		{name: "opencv's window", code: "import cv2, numpy as np\ncv2.namedWindow('w'); cv2.imshow('w', np.zeros((9, 9), np.uint8))\nprint(cv2.waitKey(0)); cv2.destroyAllWindows()", stdout: "-1\n", files: "figure-1.png"},
		{name: "opencv's films", code: "import cv2, numpy as np\nw = cv2.VideoWriter('a.mp4', cv2.VideoWriter_fourcc(*'mp4v'), 5, (32, 32))\nfor i in range(4): w.write(np.full((32, 32, 3), i * 9, np.uint8))\nw.release()\nc, n = cv2.VideoCapture('a.mp4'), 0\nwhile c.read()[0]: n += 1\nprint(n)", stdout: "4\n", files: "a.mp4"},
		{name: "skimage", code: "from skimage import data, filters, io\nio.imsave('a.png', data.camera())\nprint(filters.threshold_otsu(io.imread('a.png')), data.astronaut().shape)", stdout: "102 (512, 512, 3)\n", files: "a.png"},
		{name: "imageio", code: "import imageio, imageio.v3 as iio, numpy as np\nf = [np.full((32, 32, 3), i, np.uint8) for i in (0, 99)]\niio.imwrite('a.gif', f)\nwith imageio.get_writer('a.mp4', fps=5) as w:\n    for i in f: w.append_data(i)", files: "a.gif a.mp4"},
		{name: "Image.show", code: "from PIL import Image\nImage.new('RGB', (3, 3)).show()", files: "figure-1.png"},
		{name: "xgboost", code: "import numpy as np, xgboost as xgb\nx = np.arange(20).reshape(-1, 1)\nprint(round(float(xgb.XGBRegressor(n_estimators=50, n_jobs=-1).fit(x, x[:, 0]).predict([[3]])[0])))", stdout: "3\n"},
		{name: "numba", code: "from numba import njit, prange\n@njit(parallel=True, cache=True)\ndef f(n):\n    t = 0\n    for i in prange(n): t += i\n    return t\nprint(f(10))", stdout: "45\n", files: "~"},
		{name: "joblib", code: "import numpy as np\nfrom sklearn.ensemble import RandomForestClassifier\nfrom sklearn.model_selection import cross_val_score\nprint(len(cross_val_score(RandomForestClassifier(5), np.eye(20), [0, 1] * 10, n_jobs=2)))", stdout: "5\n"},
		{name: "geopandas", code: "import geopandas as gpd\nfrom shapely.geometry import Point\ng = gpd.GeoDataFrame({'n': ['a']}, geometry=[Point(13.4, 52.5)], crs=4326)\ng.to_file('a.geojson', driver='GeoJSON'); g.to_file('a.gpkg')\nprint(round(g.to_crs(3857).geometry[0].x), gpd.read_file('a.gpkg').equals(g), gpd.read_file('a.geojson').n[0])", stdout: "1491681 True a\n", files: "a.geojson a.gpkg"},
		{name: "a film of matplotlib", code: "import matplotlib.pyplot as plt, matplotlib.animation as a\nf, x = plt.subplots(); l, = x.plot([0])\na.FuncAnimation(f, lambda i: [l], frames=3).save('a.mp4')\nplt.close()", files: "a.mp4"},
		{name: "ffmpeg", code: "!ffmpeg -v error -f lavfi -i testsrc=d=1 a.webm && ffprobe -v error -show_entries stream=codec_name -of csv=p=0 a.webm", stdout: "vp9\n", files: "a.webm"},
		{name: "graphviz", code: "import graphviz\nd = graphviz.Digraph(); d.edge('中文', 'b')\nprint(d.pipe('png')[:4])\nd.render('g', format='png', cleanup=True)\ndisplay(d)", stdout: "~b'\\x89PNG'\n", files: "~g.png"},
		{name: "graphviz's view", code: "import graphviz\nd = graphviz.Graph(); d.node('a'); d.render('g', format='pdf', view=True, cleanup=True);", files: "g.pdf"},
		{name: "reportlab and poppler", code: "from reportlab.pdfgen.canvas import Canvas\nfrom pdfminer.high_level import extract_text\nc = Canvas('a.pdf'); c.drawString(99, 700, 'Hello'); c.save()\nprint(extract_text('a.pdf').strip())\n!pdftotext a.pdf - | head -1; pdftoppm -png a.pdf p", stdout: "Hello\nHello\n", files: "a.pdf p-1.png"},
		{name: "reportlab's pictures", code: "from reportlab.graphics.shapes import Drawing, String\nfrom reportlab.graphics import renderPM\nd = Drawing(99, 50); d.add(String(9, 9, 'Hi', fontName='Helvetica')); renderPM.drawToFile(d, 'a.png', 'PNG')", stderr: "~", files: "a.png"},
		{name: "nltk", code: "import nltk\nprint(nltk.PorterStemmer().stem('running'), nltk.wordpunct_tokenize('a b.'))", stdout: "run ['a', 'b', '.']\n"},
		{name: "matplotlib_venn", code: "from matplotlib_venn import venn2\nx = venn2((1, 2, 3))", files: "figure-1.png"},
		{name: "smaller ones", code: "import pydantic, markdown, chardet, rich, dateutil.parser, psutil\nfrom cryptography.fernet import Fernet\nclass M(pydantic.BaseModel): a: int\nf = Fernet(Fernet.generate_key())\nrich.print('[b]x[/b]', M(a='1').a, markdown.markdown('# x'), chardet.detect(b'abc')['encoding'], dateutil.parser.parse('2 May 2020').month, f.decrypt(f.encrypt(b'y')))", stdout: "x 1 <h1>x</h1> ascii 5 b'y'\n"},
		{name: "pip", code: "import subprocess, sys\nprint(subprocess.check_output([sys.executable, '-m', 'pip', '--version'], text=True)[:4])\n!pip install numpy | head -1", stdout: "~Requirement already satisfied: numpy"},
		{name: "pip without a network", code: "import subprocess, sys\nprint(subprocess.run([sys.executable, '-m', 'pip', 'install', 'no-such-package-x'], capture_output=True, text=True).stderr)", stdout: "~No matching distribution found for no-such-package-x"},
		{name: "IPython", code: "import sys, IPython\nfrom IPython.display import display, HTML\nprint(IPython.get_ipython() is get_ipython(), IPython.__version__ > '8', sorted(m for m in sys.modules if m.startswith('IPython')))", stdout: "True True ['IPython', 'IPython.display']\n"},
		{name: "more of IPython", code: "from IPython.lib.pretty import pretty\nfrom IPython.utils.capture import capture_output\nwith capture_output() as c: print('hi')\nprint(pretty([1]), c.stdout, end='')", stdout: "[1] hi\n"},
	}
}

func TestDataImagePrograms(t *testing.T) {
	s := dataServer(t)
	for _, p := range dataPrograms() {
		t.Run(p.name, func(t *testing.T) {
			p.check(t, mustRun(t, s, request{"code": p.code, "timeout_ms": 60000}))
		})
	}
}

// scripts are texts in the scripts that Matplotlib's own fonts lack in part, by language.
const scripts = "销售额 繁體 日本語 かな 한글 नमस्ते বাংলা தமிழ் తెలుగు ગુજરાતી ਪੰਜਾਬੀ ಕನ್ನಡ മലയാളം සිංහල ไทย ລາວ ខ្មែរ မြန်မာ བོད العربية اردو עברית ქართული Հայերեն አማርኛ Привет Việt Ελλάδα ✓ ★ → ☀ 😀 ₹ −1"

// Matplotlib finds a font for each character and for each name, and says nothing.
func TestDataImageFonts(t *testing.T) {
	const begin = "import matplotlib.pyplot as plt\nplt.plot([-1, 2])\n"
	const title = "plt.title('" + scripts + "')\nplt.show()"
	s := dataServer(t)
	for name, code := range map[string]string{
		"as it is":         title,
		"SimHei":           "plt.rcParams['font.sans-serif'] = ['SimHei']\nplt.rcParams['axes.unicode_minus'] = False\n" + title,
		"a family":         "plt.rcParams['font.family'] = ['Microsoft YaHei', 'Arial']\n" + title,
		"serif":            "plt.rcParams['font.family'] = 'serif'\n" + title,
		"monospace":        "plt.rcParams['font.family'] = 'monospace'\n" + title,
		"Times New Roman":  "plt.rcParams.update({'font.family': 'serif', 'font.serif': ['Times New Roman']})\n" + title,
		"bold":             "plt.rcParams.update({'font.weight': 'bold', 'axes.titleweight': 'bold'})\n" + title,
		"seaborn":          "import seaborn as sns\nsns.set_theme()\n" + title,
		"the defaults":     "plt.rcdefaults()\n" + title,
		"a text's own":     "plt.xlabel('" + scripts + "', fontname='KaiTi', style='italic')\n" + title,
		"drawn by hand":    "plt.xkcd()\n" + title,
		"a child's figure": "import subprocess, sys\nx = subprocess.check_call([sys.executable, '-c', \"import matplotlib.pyplot as plt\\nplt.title('" + scripts + "')\\nplt.savefig('figure-1.png')\"])\nplt.close()",
	} {
		t.Run(name, func(t *testing.T) {
			program{files: "figure-1.png"}.check(t, mustRun(t, s, request{"code": begin + code, "timeout_ms": 60000}))
		})
	}
	program{stderr: "~missing from font", files: "figure-1.png"}.check(t, mustRun(t, s, request{"code": begin + "plt.title('\\ue000')\nplt.show()"}))
	program{files: "a.pdf a.svg"}.check(t, mustRun(t, s, request{"code": begin + "plt.title('" + scripts + "')\nplt.savefig('a.pdf'); plt.savefig('a.svg')"}))
}

// Fonts that programs name, and the image lacks, have others in their place: with their characters, and known to
// Matplotlib and to fontconfig.
func TestDataImageFontNames(t *testing.T) {
	names := map[string]string{
		"销": "SimHei,SimSun,NSimSun,Microsoft YaHei,Arial Unicode MS,STHeiti,STSong,KaiTi,FangSong,PingFang SC,PingFang HK,WenQuanYi Micro Hei,WenQuanYi Zen Hei,Heiti TC,Microsoft JhengHei,PMingLiU,Hiragino Sans GB,Noto Sans SC,Noto Sans TC,Noto Sans CJK SC,Noto Serif CJK SC,Noto Serif SC,Source Han Sans SC,Source Han Sans CN",
		"한": "Malgun Gothic,NanumGothic,NanumBarunGothic,NanumMyeongjo,AppleGothic,Apple SD Gothic Neo,Gulim,Batang,Noto Sans KR,Noto Sans CJK KR",
		"か": "MS Gothic,MS Mincho,Meiryo,Yu Gothic,Yu Mincho,IPAexGothic,IPAexMincho,Hiragino Sans,Hiragino Kaku Gothic ProN,TakaoGothic,TakaoPGothic,VL Gothic,Noto Sans JP,Noto Sans CJK JP",
		"न": "Nirmala UI,Mangal,Lohit Devanagari,Kohinoor Devanagari,Noto Sans Devanagari",
		"ব": "Vrinda,SolaimanLipi,Noto Sans Bengali", "த": "Latha,Noto Sans Tamil", "ไ": "TH Sarabun New,Sarabun,Leelawadee UI,Noto Sans Thai",
		"ع": "Traditional Arabic,Geeza Pro,Amiri,Noto Naskh Arabic,Jameel Noori Nastaleeq", "ע": "David,Gisha,Noto Sans Hebrew",
		"é": "Arial,Helvetica,Helvetica Neue,Times New Roman,Times,Courier New,Courier,Calibri,Cambria,Verdana,Tahoma,Georgia,Segoe UI,Comic Sans MS,Consolas,Menlo,Trebuchet MS,Roboto,Open Sans,Lato,Palatino,Garamond,Futura,Impact,Lucida Grande,DejaVu Sans,Liberation Sans",
		"😀": "Segoe UI Emoji,Noto Color Emoji,Apple Color Emoji",
	}
	data, err := json.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	const code = `
import json, subprocess, sys
import matplotlib.font_manager as fm
for character, names in json.load(sys.stdin).items():
    for name in names.split(","):
        path = fm.findfont(fm.FontProperties(family=name), fallback_to_default=False)
        if not fm.get_font(path).get_char_index(ord(character)):
            print("Matplotlib:", name, path)
        found = subprocess.check_output(["fc-match", "-f", "%{charset}", name], text=True).split()
        ranges = [[int(end, 16) for end in part.split("-")] for part in found]
        if not any(part[0] <= ord(character) <= part[-1] for part in ranges):
            print("fontconfig:", name)`
	s := dataServer(t)
	program{}.check(t, mustRun(t, s, request{"code": code, "stdin": string(data), "timeout_ms": 60000}))
}

func TestDataImageLocales(t *testing.T) {
	const code = `
import locale, time
for name in "en_US en_GB zh_CN zh_TW hi_IN es_ES es_MX fr_FR ar_SA ar_EG bn_BD pt_BR pt_PT ru_RU ur_PK de_DE ja_JP ko_KR it_IT id_ID tr_TR".split():
    for end in ".UTF-8", ".utf8", "":
        locale.setlocale(locale.LC_ALL, name + end)
for name in "de_DE.UTF-8 en_US.UTF-8 fr_FR.UTF-8 zh_CN.UTF-8 hi_IN.UTF-8 ja_JP.UTF-8 pt_BR.UTF-8 ar_EG.UTF-8".split():
    locale.setlocale(locale.LC_ALL, name)
    print(locale.format_string("%.2f", 1234567.5, grouping=True), time.strftime("%B", time.gmtime(0)), locale.currency(9.5))`
	const want = "1.234.567,50 Januar 9,50 €\n1,234,567.50 January $9.50\n1\u202f234\u202f567,50 janvier 9,50 €\n1,234,567.50 一月 ￥9.50\n" +
		"1,234,567.50 जनवरी ₹9.50\n1,234,567.50 1月 ￥10\n1.234.567,50 janeiro R$ 9,50\n1,234,567.50 يناير"
	cmd := exec.CommandContext(t.Context(), shared.binary, "exec", "--timeout", "30s", code)
	cmd.Env = append(cmd.Environ(), with(dataImage)...)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("%v\n got %q\nwant %q", err, out, want)
	}
}

// No file gives rights, and what a session finds there is what programs find.
func TestDataImageHasNoSetuidFiles(t *testing.T) {
	s := startSession(t, dataServer(t), request{})
	program{stdout: "0\n"}.check(t, s.bash(t, "find / -xdev -perm /6000 2>/dev/null | wc -l"))
	program{stdout: "True 42\n"}.check(t, s.python(t, "import cv2, tables\n%matplotlib inline\nprint(get_ipython() is not None, 6 * 7)"))
}

// A model reads which packages are there, the most useful first.
func TestDataImageIsDescribed(t *testing.T) {
	c, err := mcpclient.NewStreamableHttpClient(dataServer(t).url + "/mcp")
	c = connect(t, c, err)
	described := poll(func() bool {
		tools, err := c.ListTools(t.Context(), mcpsdk.ListToolsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		at := slices.IndexFunc(tools.Tools, func(tool mcpsdk.Tool) bool { return tool.Name == "execute_python" })
		text := tools.Tools[at].Description
		if len(text) > 1000 {
			t.Fatalf("it has %d bytes: %s", len(text), text)
		}
		return strings.Contains(text, "numpy, pandas, matplotlib, scipy, scikit-learn, statsmodels, seaborn, plotly, ") && strings.Contains(text, "opencv")
	})
	if !described {
		t.Error("the description does not list the packages")
	}
	text, failed := call(t, c, patient(request{"code": "import cv2, plotly, sys; print('ok')"}))
	if failed || !strings.Contains(text, "ok") {
		t.Errorf("failed: %t; %s", failed, text)
	}
}

// The image is below the size that the documents promise: without what only a package index has.
func TestDockerDataImageSize(t *testing.T) {
	found, err := shared.engine.ImageInspect(t.Context(), dataImage)
	if err != nil {
		t.Fatal(err)
	}
	const find = "import importlib.util as u\nprint(*[n for n in ('pptx', 'pdfplumber', 'pyarrow', 'polars') if u.find_spec(n)])"
	optional := strings.Fields(mustRun(t, dataServer(t), request{"code": find}).Stdout)
	most := int64(1_900_000_000)
	if len(optional) > 0 {
		most += 600_000_000
	}
	if found.Size >= most {
		t.Errorf("with %q it has %d bytes, more than %d", optional, found.Size, most)
	}
}

// In a process that /proc knows by another number psutil is not imported, and joblib's workers
// do without it. Sandboxes behind AppArmor have such processes.
func TestDockerPsutilOfOtherNumbers(t *testing.T) {
	const program = `
import os, joblib
try:
    import psutil
except ImportError as error:
    print(error)
if __name__ == "__main__":
    print(joblib.Parallel(2)(joblib.delayed(abs)(n) for n in (-1, -2)))`
	run := func(wrapper ...string) string {
		t.Helper()
		args := slices.Concat([]string{"run", "--rm", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--user", "0", "--network", "none", "-e", "HOME=/tmp", dataImage},
			wrapper, []string{"python3", "-c", program})
		out, err := exec.CommandContext(t.Context(), "docker", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	if out := run(); out != "[1, 2]\n" {
		t.Errorf("it prints %q", out)
	}
	if out := run("unshare", "--pid", "--fork"); out != "psutil cannot be used in this process: /proc knows it by another number\n[1, 2]\n" {
		t.Errorf("with other numbers it prints %q", out)
	}
}
