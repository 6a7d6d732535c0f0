#!/bin/sh
# Makes the locales of the image. Each has two names: de_DE.UTF-8, and de_DE for programs that omit the encoding.
set -eu
folder=$(mktemp -d)
printf '%s\n' en_US en_GB en_IN de_DE es_ES es_MX fr_FR it_IT nl_NL pl_PL pt_BR pt_PT ru_RU tr_TR \
  ar_SA ar_EG bn_BD hi_IN ur_PK id_ID ja_JP ko_KR zh_CN zh_TW |
  xargs -P "$(nproc)" -I NAME localedef --no-archive -i NAME -f UTF-8 "$folder/NAME"
localedef --quiet --add-to-archive "$folder"/*
rm -rf "$folder"
