/* one
   two */ /* three
*/
