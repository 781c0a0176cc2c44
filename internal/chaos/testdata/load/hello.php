<?php
echo "hello\nok\n";
