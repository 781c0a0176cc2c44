<?php

eval('
function evaluated() {
    echo entries(); fgets(STDIN);
}
evaluated();
');
