// Sets the theme that was chosen before anything is painted. No module: those run later.
(() => {
	try {
		const theme = localStorage.getItem('sandman.theme')
		if (theme === 'dark' || theme === 'light') document.documentElement.dataset.theme = theme
	} catch { /* without storage the system's theme holds */ }
})()
