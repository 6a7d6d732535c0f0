#!/bin/sh
# Deletes what the packages of the data image contain and no program in a sandbox can use.
# It runs in the step that installs them: deleting in a later one would make no image smaller.
set -eu
lib=/usr/lib/$(uname -m)-linux-gnu
python=/usr/lib/python3/dist-packages

# What drives graphics cards, clusters and sound servers: libraries that nothing here loads.
cd "$lib"
rm -rf libLLVM-17.so* libamd_comgr.so* libamdhip64.so* libhiprtc* libhsa-runtime64.so* libgallium-*.so dri libGLX_mesa.so* \
  libmpi.so* libmpi_* liboshmem.so* libprrte.so* libopen-pal.so* openmpi pmix2 ucx libucp.so* libfabric.so* libze_* libmlx5.so* \
  libpfm.so* libjackserver.so* gstreamer-1.0 gstreamer1.0 libgphoto2 libgphoto2_port qt5/plugins libQt5XcbQpa.so* \
  libQt5EglFS* libQt5Network.so* vtk-9.3 gprofng libflite_cmu_time_awb* libflite_cmu_grapheme_lex* libhwy_contrib* libhwy_test* \
  libgdcmMEXD* libopencv_cvv* libopencv_datasets*

# Of VTK only what the module cv2 is linked to.
needed=$(ldd "$python"/cv2*.so | sed -n 's/.*=> \([^ ]*\).*/\1/p' | xargs readlink -f)
for file in libvtk*.so.9.3; do
  case "$needed" in *"/$file"*) ;; *) rm -f "$file"* ;; esac
done

# LLVM's programs: numba needs its library alone.
rm -rf /usr/lib/llvm-19/bin /usr/lib/llvm-19/lib/*Polly* /usr/lib/llvm-19/build /usr/lib/llvm-19/include /usr/lib/llvm-19/share

# Tests of what is new, parts for notebooks, editors and compilers, and what signs packages.
# Some modules import their tests.
find "$python" -name tests -type d -cnewer /opt/vivarium/recipe/began \
  -not -path '*/tables/*' -not -path '*/h5py/*' -not -path '*/bottleneck/*' -prune -exec rm -rf {} +
rm -f "$python"/tables/tests/*.h5 "$python"/tables/tests/*.mat
rm -rf "$python"/jedi/third_party "$python"/*-stubs "$python"/types_*-info "$python"/nltk/test "$python"/skimage/data/*GRAY* "$python"/skimage/data/mssim* \
  /usr/include /usr/lib/*/*.a /usr/lib/*/cmake /usr/lib/*/pkgconfig /usr/share/nodejs /usr/lib/gnupg /usr/bin/gpg /usr/bin/gpgsm /usr/bin/gpg-agent /usr/bin/dirmngr \
  /var/lib/dpkg/info/*.md5sums

# Data for desktops, and sources of locales.
rm -rf /usr/share/iso-codes /usr/share/xml/iso-codes /usr/share/X11 /usr/share/fonts/X11/[eu]* /usr/share/fonts/truetype/lato \
  /usr/share/fonts/*/font-awesome /usr/share/fonts-font-awesome /usr/share/icons /usr/share/sphinx_rtd_theme* \
  /usr/share/libwacom /usr/share/mime /usr/share/alsa /usr/share/gst* /usr/share/i18n /usr/share/locale /usr/share/doc \
  /usr/share/doc-base /usr/share/gtk-doc

# Fonts that others stand in for, and the forms of the PostScript fonts that ReportLab does not read.
cd /usr/share/fonts
rm -rf opentype/urw-base35 type1/urw-base35/*.t1 opentype/noto/NotoSerifCJK-Bold.ttc

# Of Noto the scripts of living languages.
cd /usr/share/fonts/truetype/noto
mkdir kept
for name in Sans SansMono Serif NaskhArabic NastaliqUrdu KufiArabic SerifTibetan \
  SansAdlam SansCanadianAboriginal SansCherokee SansJavanese SansMath SansMongolian SansNKo SansOlChiki SansSundanese \
  SansSymbols SansSymbols2 SansSyriac SansThaana SansTifinagh SansYi; do
  mv Noto"$name"-* kept/
done
for name in Arabic Armenian Bengali Devanagari Ethiopic Georgian Gujarati Gurmukhi Hebrew Kannada Khmer Lao Malayalam Myanmar \
  Oriya Sinhala Tamil Telugu Thai; do
  for style in Sans Serif; do
    if [ -e "Noto$style$name-Regular.ttf" ]; then mv "Noto$style$name"-* kept/; fi
  done
done
rm -f ./*.ttf
mv kept/* .
rmdir kept
