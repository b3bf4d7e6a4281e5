export PATH=/srv/venv/bin:$PATH LANG=C.UTF-8
cd /srv/project
