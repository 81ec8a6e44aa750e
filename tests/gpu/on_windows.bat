@echo off
rem Fills the README's table for Windows: double-click, or run it in this folder's environment.
cd /d "%~dp0..\.."
if exist .venv\Scripts\activate.bat call .venv\Scripts\activate.bat
python tests\gpu\on_windows.py %*
if errorlevel 1 echo Some rows could not be run; the table says why.
pause
