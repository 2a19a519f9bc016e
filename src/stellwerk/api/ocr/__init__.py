"""Reading documents: what is asked, who reads each page, and the forms in which clients want the text."""
